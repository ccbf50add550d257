-- Every column here must be registered in registry.go with its data class and
-- its retention; a test fails otherwise (R12).

-- +goose Up
CREATE TABLE room (
    name              TEXT    NOT NULL PRIMARY KEY,
    sid               TEXT    NOT NULL UNIQUE,
    policy            TEXT    NOT NULL,
    metadata          TEXT    NOT NULL,
    empty_timeout     INTEGER NOT NULL, -- seconds
    departure_timeout INTEGER NOT NULL, -- seconds
    max_participants  INTEGER NOT NULL, -- 0: no limit
    created           INTEGER NOT NULL  -- milliseconds since 1970 UTC
) STRICT;

-- +goose Down
DROP TABLE room;
