-- Sessions of browsers, whose tokens somebody else gives out.

CREATE TABLE portcullis_browser_sessions (
    hash BLOB PRIMARY KEY, -- of what the cookie holds
    id TEXT NOT NULL UNIQUE, -- for people and logs
    app TEXT NOT NULL,
    issuer TEXT NOT NULL,
    user_id TEXT NOT NULL,
    sealed BLOB NOT NULL, -- the tokens
    version INTEGER NOT NULL, -- counts their replacements
    started INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    used INTEGER NOT NULL,
    refresh_from INTEGER NOT NULL, -- not replaced before
    lease INTEGER, -- until when somebody has them replaced
    address TEXT,
    user_agent TEXT NOT NULL
);
CREATE INDEX portcullis_browser_sessions_user ON portcullis_browser_sessions (user_id, started);
CREATE INDEX portcullis_browser_sessions_expires ON portcullis_browser_sessions (expires);
