create table api_tokens (
  id bigint generated always as identity primary key,
  name text not null,
  -- SHA-256 of the token, which itself is kept nowhere.
  hash text not null unique,
  scope text not null check (scope in ('read', 'write', 'admin')),
  created_at timestamptz not null default now(),
  revoked_at timestamptz
);

-- A name can be used again when its token was revoked.
create unique index api_tokens_in_use on api_tokens (name) where revoked_at is null;
