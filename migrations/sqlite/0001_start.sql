-- Names carry a prefix: the database is often the one of an app that has its own `users`.
-- Times are milliseconds since 1970, lists are JSON, flags are 0 and 1: what both databases have.

CREATE TABLE portcullis_users (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    account TEXT NOT NULL UNIQUE,
    email TEXT,
    hash TEXT,
    hash_kind TEXT, -- the beginning of the hash up to the salt
    roles TEXT NOT NULL,
    scopes TEXT NOT NULL,
    tenant TEXT,
    disabled INTEGER NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
);
CREATE INDEX portcullis_users_hash_kind ON portcullis_users (hash_kind);

CREATE TABLE portcullis_sessions (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    issuer TEXT NOT NULL,
    app TEXT NOT NULL,
    scopes TEXT NOT NULL,
    started INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    used INTEGER NOT NULL,
    address TEXT,
    user_agent TEXT NOT NULL,
    ended INTEGER,
    ended_by TEXT,
    CHECK ((ended IS NULL) = (ended_by IS NULL))
);
CREATE INDEX portcullis_sessions_user ON portcullis_sessions (user_id, started);
CREATE INDEX portcullis_sessions_expires ON portcullis_sessions (expires);

CREATE TABLE portcullis_refresh_tokens (
    hash BLOB PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES portcullis_sessions (id) ON DELETE CASCADE,
    issued INTEGER NOT NULL,
    used INTEGER, -- when it was replaced …
    next BLOB, -- … by which token …
    sealed BLOB, -- … and that one, readable with this token alone
    CHECK ((used IS NULL) = (next IS NULL) AND (used IS NULL) = (sealed IS NULL))
);
CREATE INDEX portcullis_refresh_tokens_session ON portcullis_refresh_tokens (session_id);
-- Whatever the code does, a session has one head.
CREATE UNIQUE INDEX portcullis_refresh_tokens_head ON portcullis_refresh_tokens (session_id) WHERE used IS NULL;

CREATE TABLE portcullis_revocations (
    position INTEGER PRIMARY KEY,
    issuer TEXT NOT NULL,
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    issued_before INTEGER,
    until INTEGER NOT NULL
);
CREATE INDEX portcullis_revocations_until ON portcullis_revocations (until);

-- One row. Who adds revocations holds it until the end of the transaction, so positions appear in their order.
CREATE TABLE portcullis_revocation_position (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    position INTEGER NOT NULL
);
INSERT INTO portcullis_revocation_position (only_row, position) VALUES (1, 0);

CREATE TABLE portcullis_attempts (
    attempt_key TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    since_at INTEGER NOT NULL,
    locked_until INTEGER NOT NULL,
    locks INTEGER NOT NULL,
    forget_at INTEGER NOT NULL
);
CREATE INDEX portcullis_attempts_forget ON portcullis_attempts (forget_at);

CREATE TABLE portcullis_signing_keys (
    kid TEXT PRIMARY KEY,
    purpose TEXT NOT NULL,
    number INTEGER NOT NULL, -- counts the keys of a purpose: two gateways cannot add the same one
    algorithm TEXT NOT NULL,
    private TEXT NOT NULL,
    created INTEGER NOT NULL,
    signs INTEGER NOT NULL,
    retired INTEGER,
    UNIQUE (purpose, number)
);
