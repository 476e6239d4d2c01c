"""What the mails say: what happened, when, the link, and what to do if it was not you.

Plain text, short, in the language of whom it goes to, and nothing in it that a stranger could
have chosen: whoever signs up with somebody else's address must not write to them through us. The
names of keys are their owner's, and stand on a line each, never in a subject.
Links begin with BASE_URL and where we are mounted, never with what a request says.

Each text is one message, whole, so that a translator can say it in the order of the language;
`{link}` stands on a line of its own.
"""

from collections.abc import Sequence

from keybearer.adapters.languages import Language
from keybearer.adapters.mail import Mail
from keybearer.adapters.sql.reminders import Expiring
from keybearer.domain.credentials import Secret
from keybearer.domain.model import User
from keybearer.operations.app import App
from keybearer.operations.links import key_page, with_parameter
from keybearer.operations.wire import one_line

_HOUR_MS = 3_600_000


def verify_address(app: App, user: User, token: Secret, now: int, callback: str | None) -> Mail:
    """The link that proves an address, after a sign-up."""
    say = app.language(user.locale)
    url = with_parameter(f"{app.api}/verify-email", "token", token.reveal())
    return Mail(
        to=user.email,
        subject=say("Verify your e-mail address"),
        text=say(
            "On {when} somebody signed up at {site} with this address.\n"
            "\n"
            "If it was you, open this link within 24 hours to verify the address:\n"
            "\n"
            "{link}\n"
            "\n"
            "If it was not you, do not open it. To take the account over instead, ask for a new "
            "password at {site}: that ends whatever was done with it before."
        ).format(
            when=say.instant(now), site=app.settings.base_url, link=_leading_to(url, callback)
        ),
    )


def choose_password(app: App, user: User, token: Secret, now: int, callback: str | None) -> Mail:
    """The link for an account that has no password until the owner of the address sets one."""
    say = app.language(user.locale)
    url = f"{app.api}/reset-password/{token.reveal()}"
    return Mail(
        to=user.email,
        subject=say("Choose your password"),
        text=say(
            "On {when} an account at {site} was asked for with this address, and it has no "
            "password that we know to be yours.\n"
            "\n"
            "If you want the account, open this link within one hour and choose a password:\n"
            "\n"
            "{link}\n"
            "\n"
            "If you do not, you need not do anything: without this link nobody can use it."
        ).format(
            when=say.instant(now), site=app.settings.base_url, link=_leading_to(url, callback)
        ),
    )


def address_in_use(app: App, user: User, now: int) -> Mail:
    """To whoever has an account, when somebody signs up with the same address."""
    say = app.language(user.locale)
    return Mail(
        to=user.email,
        subject=say("You already have an account"),
        text=say(
            "On {when} somebody tried to sign up at {site} with your address.\n"
            "\n"
            "You have an account already, and nothing about it was changed. If it was you, log "
            "in; if you have forgotten the password, ask for a new one there.\n"
            "\n"
            "If it was not you, you need not do anything."
        ).format(when=say.instant(now), site=app.settings.base_url),
    )


def reset_password(app: App, user: User, token: Secret, now: int, callback: str | None) -> Mail:
    """The link for a new password."""
    say = app.language(user.locale)
    url = f"{app.api}/reset-password/{token.reveal()}"
    return Mail(
        to=user.email,
        subject=say("Set a new password"),
        text=say(
            "On {when} somebody asked for a new password for your account at {site}.\n"
            "\n"
            "If it was you, open this link within one hour; it works once:\n"
            "\n"
            "{link}\n"
            "\n"
            "If it was not you, you need not do anything: your password stays as it is."
        ).format(
            when=say.instant(now), site=app.settings.base_url, link=_leading_to(url, callback)
        ),
    )


def password_changed(app: App, user: User, now: int) -> Mail:
    """After a new password was set, whichever way."""
    say = app.language(user.locale)
    return Mail(
        to=user.email,
        subject=say("Your password was changed"),
        text=say(
            "On {when} the password of your account at {site} was changed, and the other devices "
            "were logged out.\n"
            "\n"
            "If it was not you, ask for a new password there at once: that ends every login. Then "
            "look through your API keys, and revoke those that you do not know."
        ).format(when=say.instant(now), site=app.settings.base_url),
    )


def refresh_reused(app: App, user: User, now: int) -> Mail:
    """After a refresh token came that was spent before: stolen, or copied."""
    say = app.language(user.locale)
    return Mail(
        to=user.email,
        subject=say("A device was logged out to protect your account"),
        text=say(
            "On {when} somebody used a login of your account at {site} with an old copy of its "
            "refresh token. Either that copy was stolen, or an app keeps copies that it should "
            "not keep. The login was ended; log in again on the device.\n"
            "\n"
            "If you do not know why this happened, change your password, and look through your "
            "API keys."
        ).format(when=say.instant(now), site=app.settings.base_url),
    )


def account_deleted(app: App, user: User, now: int) -> Mail:
    """After an account was deleted."""
    say = app.language(user.locale)
    return Mail(
        to=user.email,
        subject=say("Your account was deleted"),
        text=say(
            "On {when} your account at {site} was deleted. Its API keys and logins have stopped "
            "working.\n"
            "\n"
            "If it was not you, tell whoever runs {site}: the audit trail says who it was."
        ).format(when=say.instant(now), site=app.settings.base_url),
    )


def keys_expire(app: App, user: User, keys: Sequence[Expiring], now: int) -> Mail:
    """Before keys expire; the first of them first."""
    say, n = app.language(user.locale), len(keys)
    # Up to whole hours: ten minutes after the time for it, seven days are still seven days.
    hours = -((now - keys[0].expires_at) // _HOUR_MS)
    relative = say.relative(now + hours * _HOUR_MS, now)
    opening = say.plural(
        "An API key of yours at {site} expires soon. What uses it stops working then.",
        "{n} API keys of yours at {site} expire soon. What uses them stops working then.",
        n,
    )
    closing = (
        say(
            "To go on with a key, open its link and renew it before then. If you do not need it "
            "any more, you need not do anything."
        )
        if app.settings.token_management
        else say(
            "If you still need a key, ask whoever runs {site} for a new one before then. If not, "
            "you need not do anything."
        )
    )
    row = say("{name}\nStarts with {start}, expires on {when}")
    return Mail(
        to=user.email,
        subject=say.plural(
            "An API key expires {relative}", "{n} API keys expire, the first {relative}", n
        ).format(n=say.number(n), relative=relative),
        text=_about(app, say, keys, opening=opening, row=row, closing=closing, expired=False),
    )


def keys_expired(app: App, user: User, keys: Sequence[Expiring], now: int) -> Mail:
    """When keys have expired."""
    say, n = app.language(user.locale), len(keys)
    opening = say.plural(
        "An API key of yours at {site} has expired. What uses it is refused now.",
        "{n} API keys of yours at {site} have expired. What uses them is refused now.",
        n,
    )
    closing = (
        say(
            "An expired key never works again. If you still need it, make a new one and put it in "
            "its place; if not, you need not do anything."
        )
        if app.settings.token_management
        else say(
            "An expired key never works again. If you still need it, ask whoever runs {site} for "
            "a new one; if not, you need not do anything."
        )
    )
    row = say("{name}\nStarts with {start}, expired on {when}")
    return Mail(
        to=user.email,
        subject=say.plural("An API key has expired", "{n} API keys have expired", n).format(
            n=say.number(n)
        ),
        text=_about(app, say, keys, opening=opening, row=row, closing=closing, expired=True),
    )


def _about(
    app: App,
    say: Language,
    keys: Sequence[Expiring],
    *,
    opening: str,
    row: str,
    closing: str,
    expired: bool,
) -> str:
    """A paragraph for each key, with its link where the pages are on, between two sentences."""
    paragraphs = [opening.format(n=say.number(len(keys)), site=app.settings.base_url)]
    for key in keys:
        told = row.format(
            name=one_line(key.name or f"{key.start}…"),
            start=key.start,
            when=say.instant(key.expires_at),
        )
        if app.settings.token_management:
            told += "\n" + key_page(app, say.tag, key.id, expired=expired)
        paragraphs.append(told)
    paragraphs.append(closing.format(site=app.settings.base_url))
    return "\n\n".join(paragraphs)


def _leading_to(url: str, callback: str | None) -> str:
    return url if callback is None else with_parameter(url, "callbackURL", callback)
