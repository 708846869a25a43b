-- Version 1. `number` is the only key of most rows: public ids are computed from it. Columns that
-- a scan looks at stand before the blobs.
create table meta (
    name text primary key,
    value blob not null
) without rowid;

create table request (
    number integer primary key,
    status integer,            -- of the outcome; null while there is none
    attempts integer not null,
    most integer not null,
    due real not null,
    accepted real not null,
    expires real not null,
    keep real not null,
    until real,                -- until when the outcome is kept
    ended real,
    owner text not null,
    service blob not null,
    called blob not null,
    key blob,                  -- null without one
    digest blob,
    metadata blob not null,
    body blob not null,
    crc integer not null,
    reply_metadata blob,
    reply blob,
    reply_crc integer
);

create unique index request_key on request (owner, service, key) where key is not null;
create index request_open on request (number) where status is null;
create index request_until on request (until) where until is not null;
