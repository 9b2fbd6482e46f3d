CREATE TABLE IF NOT EXISTS unsynced (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    boot    TEXT NOT NULL,
    kind    INTEGER NOT NULL,
    name    TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS blob (
    digest  TEXT PRIMARY KEY,
    size    INTEGER NOT NULL,
    created INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layer (
    snapshot      TEXT PRIMARY KEY,
    diff_id       TEXT NOT NULL,
    content       BLOB NOT NULL,
    tar_size      INTEGER NOT NULL,
    created       INTEGER NOT NULL,
    created_nanos INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layer_entries (
    snapshot TEXT PRIMARY KEY,
    entries  BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS packed (
    diff_id        TEXT NOT NULL,
    parameters     TEXT NOT NULL,
    digest         TEXT NOT NULL,
    size           INTEGER NOT NULL,
    packed_diff_id TEXT NOT NULL,
    PRIMARY KEY (diff_id, parameters)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS original (
    diff_id    TEXT PRIMARY KEY,
    digest     TEXT NOT NULL,
    size       INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    locations  TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS step_record (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    chain   TEXT NOT NULL,
    title   TEXT NOT NULL,
    created INTEGER NOT NULL,
    cost_us INTEGER NOT NULL,
    parts   TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS step_record_title ON step_record (title, id);
CREATE TABLE IF NOT EXISTS step_key (
    key    BLOB PRIMARY KEY,
    record INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS step_key_record ON step_key (record);
CREATE TABLE IF NOT EXISTS image (
    id       TEXT PRIMARY KEY,
    manifest TEXT,
    chain    TEXT NOT NULL,
    created  INTEGER NOT NULL,
    size     INTEGER NOT NULL,
    platform TEXT NOT NULL,
    base     TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tag (
    name  TEXT PRIMARY KEY,
    image TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tag_image ON tag (image);
CREATE TABLE IF NOT EXISTS reference (
    key        TEXT PRIMARY KEY,
    manifest   TEXT NOT NULL,
    resolved   INTEGER NOT NULL,
    descriptor TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cache_mount (
    directory TEXT PRIMARY KEY,
    id        TEXT NOT NULL,
    created   INTEGER NOT NULL
) WITHOUT ROWID;
