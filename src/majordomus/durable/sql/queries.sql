-- name: append
insert into request (number, attempts, most, due, accepted, expires, keep, owner, service, called,
    key, digest, metadata, body, crc)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: append_keyed
insert into request (number, attempts, most, due, accepted, expires, keep, owner, service, called,
    key, digest, metadata, body, crc)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict do nothing
returning number;

-- name: by_key
select * from request where owner = ? and service = ? and key = ?;

-- name: record
update request set attempts = ?, most = ?, due = ? where number = ? and status is null;

-- name: complete
update request set status = ?, attempts = ?, reply = ?, reply_metadata = ?, reply_crc = ?,
    ended = ?, until = ?
where number = ? and status is null;

-- name: remove
delete from request where number = ?;

-- name: remove_some
delete from request where number in (values (?));

-- name: read
select * from request where number = ?;

-- name: sweep
delete from request where number in (
    select number from request where until <= ? order by until limit ?);

-- name: scan
select * from request where status is null and number > ? order by number limit ?;

-- name: page
select number, status, attempts, most, due, accepted, expires, keep, until, ended, owner, service,
    called, key, digest
from request where number > ? order by number limit ?;

-- name: numbers
select number from request where number > ? order by number limit ?;

-- name: counts
select count(*), ifnull(min(number), 1) from request;

-- name: get_meta
select value from meta where name = ?;

-- name: every_meta
select name, value from meta;

-- name: set_meta
insert into meta (name, value) values (?, ?) on conflict (name) do update set value = excluded.value;
