-- Sessions of browsers, whose tokens somebody else gives out.

CREATE TABLE portcullis_browser_sessions (
    hash BYTEA PRIMARY KEY, -- of what the cookie holds
    id TEXT NOT NULL UNIQUE, -- for people and logs
    app TEXT NOT NULL,
    issuer TEXT NOT NULL,
    user_id TEXT NOT NULL,
    sealed BYTEA NOT NULL, -- the tokens
    version BIGINT NOT NULL, -- counts their replacements
    started BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    used BIGINT NOT NULL,
    refresh_from BIGINT NOT NULL, -- not replaced before
    lease BIGINT, -- until when somebody has them replaced
    address TEXT,
    user_agent TEXT NOT NULL
);
CREATE INDEX portcullis_browser_sessions_user ON portcullis_browser_sessions (user_id, started);
CREATE INDEX portcullis_browser_sessions_expires ON portcullis_browser_sessions (expires);
