-- +goose Up
ALTER TABLE room ADD COLUMN state TEXT NOT NULL DEFAULT ''; -- JSON: the home's term, versions of fields, the recording under way

-- +goose Down
ALTER TABLE room DROP COLUMN state;
