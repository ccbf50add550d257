-- +goose Up
ALTER TABLE room ADD COLUMN tenant TEXT NOT NULL DEFAULT ''; -- name in the policy bundle; empty is no tenant's

-- +goose Down
ALTER TABLE room DROP COLUMN tenant;
