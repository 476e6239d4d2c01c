"""One address has one spelling, and two that look alike are not taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keybearer.domain.emails import normalise

ATOM = "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-/=?^_`{|}~"


@pytest.mark.parametrize(
    ("address", "normal"),
    [
        ("a@x.com", "a@x.com"),
        ("A@x.com", "a@x.com"),
        ("a@X.COM", "a@x.com"),
        (" a@x.com", "a@x.com"),
        ("a@x.com\t\r\n", "a@x.com"),
        ("first.last+tag@mail.example.co.uk", "first.last+tag@mail.example.co.uk"),
        ("o'brien@example.com", "o'brien@example.com"),
        ("root@localhost", "root@localhost"),
        ("a@1.example1", "a@1.example1"),
        ("a@b-c--d.example", "a@b-c--d.example"),
        ("a@M\u00dcnchen.example", "a@xn--mnchen-3ya.example"),
        ("a@\u65e5\u672c\u3054.example", "a@xn--38jv62nb2a.example"),
        ("a@\u043f\u0440\u0438\u043c\u0435\u0440-1.example", "a@xn---1-mlcluqhd.example"),
        ("a@\u043f\u0440\u0438-\u0432\u0435\u0442.example", "a@xn----dtbjj8ags.example"),
        ("a@\u3089\u30fc\u3081\u3093.example", "a@xn--ebkp5a86a.example"),
        ("a@\u4e2d\u3105.example", "a@xn--5ek909f.example"),
        ("a@\ud55c\u4e2d.example", "a@xn--fiqs904a.example"),
        ("a@x.1.example", "a@x.1.example"),
        ("a@x.com".ljust(1024), "a@x.com"),
        ("a@XN--MNCHEN-3YA.example", "a@xn--mnchen-3ya.example"),
        ("a" * 64 + "@x.com", "a" * 64 + "@x.com"),
        ("a@" + ".".join(["b" * 63, "c" * 63, "d" * 63, "e" * 60]),
         "a@" + ".".join(["b" * 63, "c" * 63, "d" * 63, "e" * 60])),
    ],
)  # fmt: skip
def test_an_address_has_one_normal_form(address: str, normal: str) -> None:
    assert normalise(address) == normal
    assert normalise(normal) == normal


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", "exactly one @"),
        ("a", "exactly one @"),
        ("a@b@x.com", "exactly one @"),
        ("a\uff20x.com", "exactly one @"),
        ("a@b\uff20x.com", "exactly one @"),
        ("a\ufe6bb@x.com", "exactly one @"),
        ("victim\uff20example.com@x.com", "exactly one @"),
        ("a@x.com,e@evil.com", "exactly one @"),
        ("a@x.com\r\nBcc: e@evil.com", "exactly one @"),
        ("@x.com", "before the @"),
        ("\uff56ictim@example.com", "before the @"),
        ("v\u0131ctim@example.com", "before the @"),
        ("v\u0456ctim@example.com", "before the @"),
        ("\u212aelvin@example.com", "before the @"),
        ("vi\u200bctim@example.com", "before the @"),
        ("a b@x.com", "before the @"),
        ("a\0@x.com", "before the @"),
        ("a\n@x.com", "before the @"),
        ("a\x7f@x.com", "before the @"),
        ("a,b@x.com", "before the @"),
        ("a;b@x.com", "before the @"),
        ("a:b@x.com", "before the @"),
        ('"a"@x.com', "before the @"),
        ('"a\\"@x"@y.com', "exactly one @"),
        ("a(comment)@x.com", "before the @"),
        ("Name <a@x.com>", "before the @"),
        ("<a@x.com>", "before the @"),
        ("[a]@x.com", "before the @"),
        ("a\\b@x.com", "before the @"),
        (".a@x.com", "before the @"),
        ("a.@x.com", "before the @"),
        ("a..b@x.com", "before the @"),
        ("\ud800@x.com", "before the @"),
        ("a" * 65 + "@x.com", "at most 64 characters"),
        ("a@" + ".".join(["b" * 63] * 3 + ["c" * 61]), "at most 254 characters"),
        ("a@" + ".".join(["\u00fc" * 30] * 8), "at most 254 characters"),
        ("a" * 100_000, "at most 254 characters"),
        ("@" * 100_000, "at most 254 characters"),
        ("a@" + "b." * 50_000, "at most 254 characters"),
        (" " * 100_000, "at most 254 characters"),
        ("a@x.com".ljust(1025), "at most 254 characters"),
        ("a@x", "the name of a domain"),
        ("a@1.2.3.4", "the name of a domain"),
        ("a@x.example.1", "the name of a domain"),
        ("a@localhost.", "Each part"),
        ("a@", "Each part"),
        ("a@x.com.", "Each part"),
        ("a@.x.com", "Each part"),
        ("a@x..com", "Each part"),
        ("a@[1.2.3.4]", "Each part"),
        ("a@x.com>", "Each part"),
        ("a@x.com\nBcc: e", "Each part"),
        ("a@-x.com", "Each part"),
        ("a@x-.com", "Each part"),
        ("a@x_y.com", "Each part"),
        ("a@" + "b" * 64 + ".com", "Each part"),
        ("victim@ex\u0430mple.com", "one script"),
        ("victim@\u043f\u0440\u0438-example.com", "one script"),
        ("victim@\u043f\u0440\u0967\u0432\u0435\u0442.com", "one script"),
        ("victim@\uff45xample.com", "one script"),
        ("victim@example\u3002com", "one script"),
        ("victim@stra\u00dfe.example", "one script"),
        ("victim@a\u200db.example", "one script"),
        ("victim@x\u0307.example", "one script"),
        ("victim@\u00fc_a.example", "one script"),
        ("victim@-\u00fc.example", "one script"),
        ("victim@\u00fc-.example", "one script"),
        ("victim@\u2764.example", "one script"),
        ("victim@\u0378.example", "one script"),
        ("victim@\ud800.example", "one script"),
        ("victim@" + "\u00fc" * 60 + ".example", "one script"),
        ("victim@" + "\u00fc" * 64 + ".example", "one script"),
    ],
)
def test_what_is_not_exactly_one_address_is_refused(address: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        normalise(address)


@given(st.text(alphabet=ATOM, min_size=1, max_size=64), st.sampled_from(["x.com", "B\u00fc.EU"]))
def test_case_and_space_make_no_second_address(local: str, domain: str) -> None:
    normal = normalise(f"{local}@{domain}")
    assert normalise(f"  {local.upper()}@{domain.swapcase()}\r\n") == normal
    assert normalise(normal) == normal


@given(st.one_of(st.text(max_size=80), st.from_regex(r".{0,20}@.{0,20}\.\w{0,5}", fullmatch=True)))
def test_any_text_is_a_plain_address_or_a_value_error(text: str) -> None:
    try:
        normal = normalise(text)
    except ValueError:
        return
    assert normal.isascii()
    assert normal.isprintable()
    assert normal == normal.lower()
    assert not set(normal) & set(' ,;:"<>()[]\\')
    assert normal.count("@") == 1
    assert normalise(normal) == normal
