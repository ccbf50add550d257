-- +goose Up
CREATE TABLE aside (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT, -- the order in which the shared database has refused them
    handle BLOB    NOT NULL,
    sid    TEXT    NOT NULL,
    gone   INTEGER NOT NULL,                  -- 1: the room is deleted
    sealed BLOB    NOT NULL,
    reason TEXT    NOT NULL,                  -- what the database said
    since  INTEGER NOT NULL,                  -- milliseconds since 1970 UTC
    UNIQUE (handle, sid)
) STRICT;

-- +goose Down
DROP TABLE aside;
