"""Tokens: what is signed is what is read, and nothing else is: expired, tampered with, signed with
another key or algorithm, bound to another connection, revoked."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from majordomus.core.session.login import TOKEN_REFUSALS
from majordomus.errors import ConfigurationError
from majordomus.security import tokens
from majordomus.security.tokens import Checker, SigningKey, TokenError, new_key
from tests.security.conftest import overwrite_unseen

NOW = 1_800_000_000.0
CURVE = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
CLAIMS = {
    "sub": "ann",
    "groups": ["staff"],
    "iat": int(NOW),
    "exp": int(NOW) + 900,
    "jti": "id",
    "sid": "session",
    "auth_time": int(NOW),
}


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return new_key()


@pytest.fixture
def checker(key: SigningKey) -> Checker:
    return Checker([key.public])


def refusal(checker: Checker, token: str, now: float = NOW, curve: str = "") -> str:
    with pytest.raises(TokenError) as caught:
        checker.check(token, now, curve)
    assert token not in str(caught.value) or not token
    return caught.value.reason


def armoured(data: bytes | dict[str, Any]) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(key: SigningKey, **changes: Any) -> str:
    """A token with any claims, rightly signed; a change to None leaves the claim out."""
    claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
    header = {"alg": "Ed25519", "kid": key.kid}
    return jwt.encode(header, claims, key._key, algorithms=["Ed25519"])


def test_token_has_the_claims_that_were_signed(key: SigningKey, checker: Checker) -> None:
    token, claims = key.sign("ann", ["staff", "größe"], NOW, curve=CURVE)
    assert checker.check(token, NOW + 899, CURVE) == claims
    assert (claims.user, claims.groups, claims.curve) == ("ann", ("staff", "größe"), CURVE)
    assert (claims.issued, claims.expires) == (int(NOW), int(NOW) + 900)
    assert claims.id != claims.session != key.sign("ann", [], NOW)[1].session
    assert checker.check(token, NOW, CURVE) is checker.check(token, NOW, CURVE)


def test_renewal_keeps_the_session_and_the_time_of_its_login(key: SigningKey) -> None:
    _, first = key.sign("ann", [], NOW)
    _, again = key.sign("ann", [], NOW + 600, session=first.session, since=first.since)
    assert (again.session, again.since) == (first.session, int(NOW))
    assert again.id != first.id
    assert again.expires == int(NOW) + 1500


def test_token_is_refused_when_it_has_expired(key: SigningKey, checker: Checker) -> None:
    token, _ = key.sign("ann", [], NOW, lifetime=10)
    checker.check(token, NOW + 9.9)
    assert refusal(checker, token, NOW + 10) == "expired"
    assert refusal(Checker([key.public]), token, NOW + 10) == "expired"


def test_token_of_the_future_is_refused(key: SigningKey, checker: Checker) -> None:
    token, _ = key.sign("ann", [], NOW)
    checker.check(token, NOW - 4)
    assert refusal(checker, token, NOW - 6) == "too-early"


def test_token_with_any_byte_changed_is_refused(key: SigningKey, checker: Checker) -> None:
    token, _ = key.sign("ann", ["staff"], NOW)
    head, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    richer = armoured({**claims, "groups": ["staff", "admins"]})
    assert refusal(checker, f"{head}.{richer}.{signature}") == "bad-signature"
    assert refusal(checker, f"{head}.{payload}.{'A' * len(signature)}") == "bad-signature"
    assert refusal(checker, f"{head}.{payload}.") == "bad-signature"
    other = armoured({"alg": "Ed25519", "kid": key.kid, "x": 1})
    assert refusal(checker, f"{other}.{payload}.{signature}") == "bad-signature"
    for at in range(0, len(token) - 1, 7):
        changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        assert refusal(checker, changed) in (
            "bad-signature",
            "malformed",
            "unknown-key",
            "other-algorithm",
        )


def test_token_of_another_key_is_refused(checker: Checker) -> None:
    token, _ = new_key().sign("ann", [], NOW)
    assert refusal(checker, token) == "unknown-key"


def test_token_of_another_key_under_the_name_of_ours_is_refused(
    key: SigningKey, checker: Checker
) -> None:
    header = {"alg": "Ed25519", "kid": key.kid}
    other = OKPKey.generate_key("Ed25519")
    token = jwt.encode(header, CLAIMS, other, algorithms=["Ed25519"])
    assert refusal(checker, token) == "bad-signature"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "HS256", "EdDSA", "ES256", "RS256", ""])
def test_other_algorithm_is_refused_before_any_key_is_asked(
    key: SigningKey, checker: Checker, name: str
) -> None:
    header = armoured({"alg": name, "kid": key.kid})
    token, _ = key.sign("ann", [], NOW)
    assert refusal(checker, f"{header}.{armoured(CLAIMS)}.") == "other-algorithm"
    assert refusal(checker, f"{header}.{armoured(CLAIMS)}.{token.split('.')[2]}") == (
        "other-algorithm"
    )


def test_public_key_used_as_a_secret_of_hmac_is_refused(key: SigningKey, checker: Checker) -> None:
    raw = base64.urlsafe_b64decode(str(key._key.as_dict(private=False)["x"]) + "==")
    forged = OctKey.import_key(raw)
    for name in ("HS256", "Ed25519"):
        try:
            header = {"alg": "HS256", "kid": key.kid}
            token = jwt.encode(header, CLAIMS, forged, algorithms=["HS256"])
        finally:
            head, payload, signature = token.split(".")
        head = armoured({"alg": name, "kid": key.kid})
        reasons = ("other-algorithm", "bad-signature")
        assert refusal(checker, f"{head}.{payload}.{signature}") in reasons


@pytest.mark.parametrize("make", [lambda: ECKey.generate_key("P-256"), RSAKey.generate_key])
def test_token_of_another_kind_of_key_is_refused(
    key: SigningKey, checker: Checker, make: Callable[[], Any]
) -> None:
    other = make()
    name = "ES256" if isinstance(other, ECKey) else "RS256"
    token = jwt.encode({"alg": name, "kid": key.kid}, CLAIMS, other, algorithms=[name])
    assert refusal(checker, token) == "other-algorithm"


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "a.b.c", "a.b", "a.b.c.d", "é.b.c", "x" * 4000, "e30.e30.", "\0.\0.\0"],
)
def test_malformed_token_is_refused(checker: Checker, text: str) -> None:
    assert refusal(checker, text) in ("malformed", "other-algorithm")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sub": None}, "malformed"),
        ({"sub": 5}, "malformed"),
        ({"sub": ""}, "bad-name"),
        ({"sub": "a\nb"}, "bad-name"),
        ({"sub": "uid:0"}, "bad-name"),
        ({"groups": ["uid:0"]}, "bad-name"),
        ({"sub": "n" * 256}, "bad-name"),
        ({"groups": "staff"}, "malformed"),
        ({"groups": [""]}, "bad-name"),
        ({"groups": ["g"] * 65}, "bad-name"),
        ({"exp": None}, "malformed"),
        ({"exp": "never"}, "malformed"),
        ({"jti": None}, "malformed"),
        ({"admin": True}, "malformed"),
        ({"cnf": {"jkt": "x"}}, "other-key"),
        ({"cnf": "x"}, "malformed"),
    ],
)
def test_rightly_signed_token_with_wrong_claims_is_refused(
    key: SigningKey, checker: Checker, changes: dict[str, Any], reason: str
) -> None:
    checker.check(signed(key), NOW)
    assert refusal(checker, signed(key, **changes)) == reason


def test_token_is_good_only_over_the_connection_that_it_is_bound_to(
    key: SigningKey, checker: Checker
) -> None:
    bound, _ = key.sign("ann", [], NOW, curve=CURVE)
    free, _ = key.sign("ann", [], NOW)
    assert refusal(checker, bound) == "other-key"
    assert refusal(checker, bound, curve=CURVE.swapcase()) == "other-key"
    assert checker.check(bound, NOW, CURVE).user == checker.check(free, NOW, CURVE).user == "ann"


def test_revoked_token_is_refused_and_others_are_not(key: SigningKey, checker: Checker) -> None:
    (one, first), (two, _) = key.sign("ann", [], NOW), key.sign("ann", [], NOW)
    checker.check(one, NOW)
    checker.revoke(first.id, NOW, NOW + 900)
    assert refusal(checker, one) == "revoked"
    checker.check(two, NOW)


def test_revoked_session_ends_all_its_tokens(key: SigningKey, checker: Checker) -> None:
    one, first = key.sign("ann", [], NOW)
    two, _ = key.sign("ann", [], NOW, session=first.session)
    checker.revoke(first.session, NOW, NOW + 900)
    assert (refusal(checker, one), refusal(checker, two)) == ("revoked", "revoked")


def test_revoked_ids_are_bounded_and_those_that_are_over_go_first(
    key: SigningKey, checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MOST_REVOKED", 3)
    for number in range(3):
        checker.revoke(f"{number}", NOW, NOW + number)
    checker.revoke("new", NOW + 1.5, NOW + 900)
    assert set(checker._revoked) == {"2", "new"}
    checker.revoke("b", NOW + 1.5, NOW + 800)
    checker.revoke("c", NOW + 1.5, NOW + 700)
    assert set(checker._revoked) == {"new", "b", "c"}


def test_known_tokens_are_bounded(
    key: SigningKey, checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MOST_KNOWN", 2)
    for _ in range(5):
        checker.check(key.sign("ann", [], NOW)[0], NOW)
    assert len(checker._known) <= 2


def test_two_keys_are_live_while_they_are_changed(key: SigningKey, checker: Checker) -> None:
    newer = new_key()
    old_token, new_token = key.sign("ann", [], NOW)[0], newer.sign("ann", [], NOW)[0]
    assert refusal(checker, new_token) == "unknown-key"
    checker.add(newer.public)
    assert checker.check(old_token, NOW).user == checker.check(new_token, NOW).user
    checker.remove(key.kid)
    assert refusal(checker, old_token) == "unknown-key"
    assert checker.kids == {newer.kid}


def test_broker_that_has_only_the_public_key_accepts_the_token(
    key: SigningKey, tmp_path: Path
) -> None:
    public, _ = key.save(tmp_path / "tokens")
    elsewhere = Checker([tokens.read_public(public)])
    assert elsewhere.check(key.sign("ann", [], NOW)[0], NOW).user == "ann"


def test_key_is_read_as_it_was_saved(key: SigningKey, tmp_path: Path) -> None:
    public, secret = key.save(tmp_path / "tokens")
    assert (public.name, secret.name) == ("tokens.jwk", "tokens.jwk_secret")
    assert tokens.read_secret(secret).kid == tokens.read_public(public).kid == key.kid
    assert secret.stat().st_mode & 0o777 == 0o600
    assert "d" not in json.loads(public.read_text())
    text = json.loads(secret.read_text())["d"]
    assert text not in repr(key) and text not in str(vars(key.public))


def test_key_takes_no_other_files_place(key: SigningKey, tmp_path: Path) -> None:
    key.save(tmp_path / "tokens")
    before = (tmp_path / "tokens.jwk_secret").read_bytes()
    with pytest.raises(ConfigurationError, match=r"tokens\.jwk exists already"):
        new_key().save(tmp_path / "tokens")
    (tmp_path / "tokens.jwk").unlink()
    with pytest.raises(ConfigurationError, match=r"tokens\.jwk_secret exists already"):
        new_key().save(tmp_path / "tokens")
    assert (tmp_path / "tokens.jwk_secret").read_bytes() == before


def test_secret_that_others_can_read_is_refused(key: SigningKey, tmp_path: Path) -> None:
    _, secret = key.save(tmp_path / "tokens")
    secret.chmod(0o640)
    with pytest.raises(ConfigurationError, match="other users can read"):
        tokens.read_secret(secret)


def test_halves_are_not_taken_for_each_other(key: SigningKey, tmp_path: Path) -> None:
    public, secret = key.save(tmp_path / "tokens")
    public.chmod(0o600)
    with pytest.raises(ConfigurationError, match="is a public key; the secret key is needed"):
        tokens.read_secret(public)
    with pytest.raises(ConfigurationError, match="give other brokers the public one"):
        tokens.read_public(secret)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"kty": "OKP"}', "not json", "wrong kid"]
)
def test_file_that_is_no_key_is_refused_without_its_text(
    key: SigningKey, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "x.jwk"
    if text == "wrong kid":
        text = json.dumps({**key._key.as_dict(private=False), "kid": "x"})
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        tokens.read_public(path)
    assert str(caught.value) == f"{path} is not an Ed25519 key (a JWK of RFC 8037)"


def test_key_of_another_curve_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jwk"
    path.write_text(json.dumps(OKPKey.generate_key("X25519").as_dict(private=False)))
    with pytest.raises(ConfigurationError, match="is not an Ed25519 key"):
        tokens.read_public(path)


def test_folder_of_keys_is_looked_at_while_it_is_used(key: SigningKey, tmp_path: Path) -> None:
    checker = Checker(folder=tmp_path)
    token, _ = key.sign("ann", [], NOW)
    assert refusal(checker, token) == "unknown-key"
    public, secret = key.save(tmp_path / "tokens")
    secret.unlink()
    assert refusal(checker, token, NOW + 0.5) == "unknown-key"
    assert checker.check(token, NOW + 1).user == "ann"
    (tmp_path / "broken.jwk").write_text("{")
    assert checker.check(token, NOW + 3).user == "ann"
    (tmp_path / "broken.jwk").unlink()
    public.unlink()
    assert refusal(checker, token, NOW + 5) == "unknown-key"


def test_key_file_with_another_key_of_the_same_size_and_time_is_read_again(
    key: SigningKey, tmp_path: Path
) -> None:
    public, secret = key.save(tmp_path / "tokens")
    secret.unlink()
    checker = Checker(folder=tmp_path)
    token, _ = key.sign("ann", [], NOW)
    assert checker.check(token, NOW).user == "ann"
    (tmp_path / "other").mkdir()
    other, _ = new_key().save(tmp_path / "other" / "tokens")
    overwrite_unseen(public, other.read_text())
    assert refusal(checker, token, NOW + 2) == "unknown-key"


def test_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a folder of public keys"):
        Checker(folder=tmp_path / "nowhere")


def test_token_that_would_be_too_long_is_not_made(key: SigningKey) -> None:
    groups = [os.urandom(100).hex() for _ in range(20)]
    with pytest.raises(TokenError, match="at most 3072 bytes"):
        key.sign("ann", groups, NOW)
    with pytest.raises(TokenError, match="has an invalid name"):
        key.sign("", [], NOW)


def test_clients_of_older_dialects_recognise_every_sentence_that_refuses_a_token() -> None:
    refusals = {
        value[1].encode()
        for name, value in vars(tokens).items()
        if name.isupper() and isinstance(value, tuple) and len(value) == 2
        if all(isinstance(one, str) for one in value)
    }
    assert refusals == TOKEN_REFUSALS
