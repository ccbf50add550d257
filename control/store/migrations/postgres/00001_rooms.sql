-- Every column here must be registered in registry.go with its data class and
-- its retention; a test fails otherwise (R12).

-- +goose Up
CREATE TABLE room (
    handle BYTEA NOT NULL PRIMARY KEY, -- keyed hash of the name
    sid    TEXT  NOT NULL UNIQUE,
    sealed BYTEA NOT NULL              -- the room: see document in seal.go
);
CREATE TABLE about (
    name  TEXT  NOT NULL PRIMARY KEY,  -- "key": something sealed; "id": of this database
    value BYTEA NOT NULL
);

-- +goose Down
DROP TABLE about;
DROP TABLE room;
