"""`majordomus acl`: the rule that decides, by exit code and in words."""

from __future__ import annotations

from tests.cli.shell import Shell

RULES = """
[[rule]]
allow = ["call"]
users = ["ann"]
names = ["acme.*", "echo"]

[[rule]]
deny = ["call"]
groups = ["guests"]

[tenants]
acme = "acme."
"""


def test_rule_that_allows_is_named(shell: Shell) -> None:
    shell.write("rights.toml", RULES)
    done = shell.run("acl", "test", "ann", "call", "echo", "--acl", "rights.toml")
    assert done == (0, b"allowed: rule 1 of rights.toml allows it\n", "")


def test_rule_that_denies_is_named_and_the_exit_code_is_1(shell: Shell) -> None:
    shell.write("rights.toml", RULES)
    arguments = ["acl", "test", "ann", "call", "echo", "--group", "staff", "--group", "guests"]
    done = shell.run(*arguments, MAJORDOMUS_ACL="rights.toml")
    assert done == (1, b"denied: rule 2 of rights.toml denies it\n", "")


def test_that_no_rule_allows_it_is_said(shell: Shell) -> None:
    shell.write("rights.toml", RULES)
    done = shell.run("acl", "test", "", "serve", "echo", "--acl", "rights.toml")
    assert done == (1, b"denied: no rule allows it\n", "")


def test_full_name_of_a_tenants_service_is_shown(shell: Shell) -> None:
    shell.write("rights.toml", RULES)
    done = shell.run("acl", "test", "ann", "call", "x", "--group", "acme", "--acl", "rights.toml")
    said = b"allowed: rule 1 of rights.toml allows it (known to the broker as acme.x)\n"
    assert done == (0, said, "")


def test_unix_user_of_an_ipc_connection_can_be_asked_about(shell: Shell) -> None:
    shell.write("rights.toml", '[[rule]]\nallow = ["call"]\nusers = ["uid:1000"]\n')
    done = shell.run("acl", "test", "uid:1000", "call", "echo", "--acl", "rights.toml")
    assert done == (0, b"allowed: rule 1 of rights.toml allows it\n", "")
    done = shell.run("acl", "test", "uid:1001", "call", "echo", "--acl", "rights.toml")
    assert done == (1, b"denied: no rule allows it\n", "")


def test_good_file_is_ok(shell: Shell) -> None:
    shell.write("rights.toml", RULES)
    assert shell.run("acl", "check", "rights.toml") == (0, b"rights.toml: ok\n", "")


def test_broken_file_is_one_line_and_exit_code_2(shell: Shell) -> None:
    shell.write("rights.toml", RULES + "[[rule]]\nallow = ['fly']\n")
    complaint = (
        "majordomus acl: rights.toml: rule 3: unknown action 'fly'; "
        "the known ones are call, serve, publish, subscribe, manage\n"
    )
    assert shell.run("acl", "check", "rights.toml") == (2, b"", complaint)
    done = shell.run("acl", "test", "ann", "call", "echo", "--acl", "rights.toml")
    assert done == (2, b"", complaint)
    done = shell.run("broker", "--bind", "tcp://127.0.0.1:0", "--acl", "rights.toml")
    assert (done.code, done.out) == (2, b"")
    assert done.err == complaint.replace("acl:", "broker:", 1)


def test_wrong_usage_is_one_line(shell: Shell) -> None:
    for arguments in (["acl"], ["acl", "test", "ann", "fly", "x"], ["acl", "test", "ann"]):
        done = shell.run(*arguments)
        assert (done.code, done.out, done.err.count("\n")) == (2, b"", 1), done.err
