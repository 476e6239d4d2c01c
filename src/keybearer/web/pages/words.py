"""What codes are called on the pages: statuses, outcomes, events, refusals."""

from collections.abc import Mapping

from keybearer.adapters.languages import N_, Language
from keybearer.domain.errors import PROBLEMS
from keybearer.domain.instants import parse_iso
from keybearer.operations.keywire import ApiKey
from keybearer.settings import Settings
from keybearer.settingvalues import DAY_MS

STATUSES: Mapping[str, tuple[str, str]] = {
    "active": (N_("Active"), "circle-check"),
    "expiring": (N_("Expires soon"), "hourglass"),
    "expired": (N_("Expired"), "clock"),
    "disabled": (N_("Disabled"), "circle-pause"),
    "revoked": (N_("Revoked"), "ban"),
    "rotating": (N_("Rotating"), "refresh-cw"),
}
"""The words for a key's status, with their icons."""

OUTCOMES: Mapping[str, str] = {
    "accepted": N_("Accepted"),
    "RATE_LIMITED": N_("Refused: rate limit exceeded"),
    "USAGE_EXCEEDED": N_("Refused: quota used up"),
    "INSUFFICIENT_SCOPE": N_("Refused: permission missing"),
    "IP_NOT_ALLOWED": N_("Refused: IP address not allowed"),
    "KEY_DISABLED": N_("Refused: key disabled"),
    "KEY_EXPIRED": N_("Refused: key expired"),
    "KEY_REVOKED": N_("Refused: key revoked"),
    "KEY_REPLACED": N_("Refused: old secret after a rotation"),
    "OWNER_DISABLED": N_("Refused: account not active"),
    "SESSION_REQUIRED": N_("Refused: not for API keys"),
}
"""What became of a request."""

REASONS: Mapping[str, str] = {
    "leaked": N_("It leaked, or may have"),
    "replaced": N_("Another key has replaced it"),
    "unneeded": N_("It is no longer needed"),
    "left": N_("Whoever used it has left"),
    "other": N_("Another reason"),
}
"""Why a key was revoked; what stands in the trail is the word before."""

EVENTS: Mapping[str, str] = {
    "calendar.created": N_("Calendar address created"),
    "calendar.revoked": N_("Calendar address revoked"),
    "email.verified": N_("E-mail address verified"),
    "event.disowned": N_("Reported as “This wasn’t me”"),
    "key.created": N_("API key created"),
    "key.expiry_reminded": N_("Reminded of an expiry"),
    "key.imported": N_("API key imported"),
    "key.revoked": N_("API key revoked"),
    "key.rotated": N_("API key rotated"),
    "key.rotation_cancelled": N_("Rotation cancelled"),
    "key.rotation_extended": N_("Rotation extended"),
    "key.rotation_finished": N_("Rotation finished"),
    "key.updated": N_("API key changed"),
    "login.failed": N_("Log-in failed"),
    "password.changed": N_("Password changed"),
    "password.refused": N_("Wrong password"),
    "password.removed": N_("Password removed"),
    "password.reset": N_("Password reset"),
    "refresh.reuse": N_("Old refresh token used again"),
    "reset.requested": N_("Password reset requested"),
    "session.confirmed": N_("Password confirmed"),
    "session.ended": N_("Logged out"),
    "session.imported": N_("Log-in imported"),
    "session.opened": N_("Logged in"),
    "user.created": N_("Account created"),
    "user.deleted": N_("Account deleted"),
    "user.disabled": N_("Account disabled"),
    "user.enabled": N_("Account enabled"),
    "user.imported": N_("Account imported"),
    "user.signed_up": N_("Signed up"),
    "user.updated": N_("Account changed"),
    "verification.requested": N_("Verification mail requested"),
}
"""What the audit trail tells."""

ACTORS: Mapping[str, str] = {
    "access": N_("You, with an access token"),
    "anonymous": N_("Not logged in"),
    "key": N_("An API key"),
    "operator": N_("The operator"),
    "service": N_("A service"),
    "session": N_("You, in a browser"),
}
"""Who did it."""

NOTICES: Mapping[str, str] = {
    "calendar-ended": N_("The calendar address no longer works."),
    "confirmed": N_("Password confirmed."),
    "disabled": N_("The key is disabled: requests with it are refused from now on."),
    "disowned": N_(
        "That session has ended. Log in, change your password, and look through your API keys."
    ),
    "enabled": N_("The key is enabled again."),
    "keys-disabled": N_("The selected keys are disabled."),
    "keys-enabled": N_("The selected keys are enabled."),
    "language": N_("Mails will be in this language."),
    "logged-out": N_("You are logged out."),
    "none-selected": N_("Select at least one key first."),
    "others-ended": N_("All other sessions have ended."),
    "password": N_("Your password is changed, and all other sessions have ended."),
    "password-set": N_("Your password is set. Log in with it."),
    "rotation-cancelled": N_("The rotation is cancelled: the old secret goes on."),
    "rotation-extended": N_("The old secret works longer now."),
    "rotation-finished": N_("The rotation is finished: only the new secret works."),
    "saved": N_("Saved."),
    "sent-again": N_("If the address needs it, a new mail is on its way."),
    "session-ended": N_("The session has ended."),
}
"""What a page says of the one before."""

_PROBLEMS: Mapping[str, str] = {
    "EMAIL_NOT_VERIFIED": N_("Verify your e-mail address first: open the link that we mailed you."),
    "EXPIRES_IN_IS_TOO_LARGE": N_("Keys may live for {days} days at most here."),
    "EXPIRES_IN_IS_TOO_SMALL": N_("Choose a time that is still to come."),
    "IDEMPOTENCY_KEY_REUSED": N_(
        "This form has made a key already. Send it again if you want another one."
    ),
    "INSUFFICIENT_SCOPE": N_("You may not do this."),
    "INTERNAL_ERROR": N_("Something went wrong on our side. Try again."),
    "INVALID_EMAIL": N_("Enter an e-mail address, as ann@example.com."),
    "INVALID_EMAIL_OR_PASSWORD": N_("The e-mail address or the password is wrong."),
    "INVALID_IP_RANGE": N_(
        "Enter IPv4 or IPv6 addresses or ranges, as 203.0.113.7 or 2001:db8::/32, one on a line."
    ),
    "INVALID_NAME_LENGTH": N_("Enter a name of 1 to 64 characters."),
    "INVALID_ORIGIN": N_("This form was not sent from one of our pages. Load the page again."),
    "INVALID_PASSWORD": N_("The password is wrong."),
    "INVALID_TOKEN": N_("The link is invalid, used or expired. Ask for a new one."),
    "KEY_ALREADY_ROTATED": N_("This key was rotated meanwhile. Nothing more was changed."),
    "KEY_CHANGED_MEANWHILE": N_(
        "This key was changed meanwhile, perhaps in another tab. Look through it again."
    ),
    "KEY_CREATION_NOT_ALLOWED": N_("You may not create API keys here. Ask an administrator."),
    "KEY_EXPIRY_REQUIRED": N_("Keys without expiry are not allowed here."),
    "KEY_LIMIT_REACHED": N_("You have as many keys as you may: revoke one first."),
    "KEY_NOT_FOUND": N_("There is no such key, or it is not yours."),
    "KEY_NOT_ROTATABLE": N_("Expired and revoked keys can’t be rotated: create a new one."),
    "KEY_NOT_ROTATING": N_("This key is not being rotated any more."),
    "KEY_NOT_UPDATABLE": N_("Expired and revoked keys can’t be changed: create a new one."),
    "METHOD_NOT_ALLOWED": N_("This page can’t be used like that."),
    "MISSING_OR_NULL_ORIGIN": N_(
        "This form was not sent from one of our pages. Load the page again."
    ),
    "NOT_FOUND": N_("There is nothing at this address."),
    "PASSWORD_TOO_COMMON": N_(
        "This password is too easy to guess. Take a sentence or several unrelated words."
    ),
    "PASSWORD_TOO_LONG": N_("The password is too long."),
    "PASSWORD_TOO_SHORT": N_("The password needs at least {minimum} characters."),
    "REVOCATION_PENDING": N_(
        "It is done in the database. Other servers follow within seconds; we can’t confirm it yet."
    ),
    "SCOPE_NOT_HELD": N_("A key can’t have permissions that you lack yourself."),
    "SESSION_NOT_FRESH": N_("Confirm your password first."),
    "TOO_MANY_ATTEMPTS": N_("Too many attempts. Wait a few minutes, then try again."),
    "UNAUTHORIZED": N_("Log in first."),
    "UNAVAILABLE": N_("We can’t reach what we need right now. Try again in a moment."),
    "USER_DISABLED": N_("This account is disabled."),
    "VALIDATION_ERROR": N_("Something in the form can’t be used. Check what you entered."),
}


def ago(say: Language, ms: int, now: int) -> str:
    """How long ago, or in how long."""
    if abs(ms - now) < 5_000:
        return say("just now")
    return say.relative(ms, now)


def span(say: Language, ms: int) -> str:
    """A length of time, of a window say, in the greatest unit that it is whole in."""
    if ms % DAY_MS == 0:
        n, said = ms // DAY_MS, say.plural("{n} day", "{n} days", ms // DAY_MS)
    elif ms % 3_600_000 == 0:
        n, said = ms // 3_600_000, say.plural("{n} hour", "{n} hours", ms // 3_600_000)
    elif ms % 60_000 == 0:
        n, said = ms // 60_000, say.plural("{n} minute", "{n} minutes", ms // 60_000)
    elif ms % 1_000 == 0:
        n, said = ms // 1_000, say.plural("{n} second", "{n} seconds", ms // 1_000)
    else:
        n, said = ms, say.plural("{n} millisecond", "{n} milliseconds", ms)
    return said.format(n=say.number(n))


def urgency(key: ApiKey, now: int) -> str:
    """How pressing an expiry is, as a class of the stylesheet."""
    if key.expires_at is None or key.status in ("expired", "revoked"):
        return ""
    left = parse_iso(key.expires_at) - now
    return "very-soon" if left < DAY_MS else "soon" if left < 14 * DAY_MS else ""


def called(key: ApiKey) -> str:
    """A key within a sentence: isolated, as its name may be written the other way."""
    return f"\N{FIRST STRONG ISOLATE}{key.name or key.start}\N{POP DIRECTIONAL ISOLATE}"


def statuses(say: Language) -> list[tuple[str, str]]:
    """Every status with its word."""
    return [(status, say(word)) for status, (word, _) in STATUSES.items()]


def problem(say: Language, code: str, settings: Settings) -> str:
    """The sentence for a refusal."""
    sentence = _PROBLEMS.get(code)
    if sentence is None:
        return PROBLEMS[code].message
    return say(sentence).format(
        days=say.number(settings.key_max_lifetime // DAY_MS),
        minimum=say.number(settings.password_min_length),
    )


def outcome(say: Language, code: str) -> str:
    """What became of a request."""
    return say(OUTCOMES[code]) if code in OUTCOMES else code


def event(say: Language, name: str) -> str:
    """An event of the audit trail."""
    return say(EVENTS[name]) if name in EVENTS else name


def actor(say: Language, kind: str) -> str:
    """Who did it."""
    return say(ACTORS[kind]) if kind in ACTORS else kind


def client(user_agent: str | None) -> str:
    """A short name for a user agent: `curl/8.7`, `Firefox 131`."""
    if not user_agent:
        return ""
    for name, mark in (
        ("Edge", "Edg/"),
        ("Opera", "OPR/"),
        ("Chrome", "Chrome/"),
        ("Firefox", "Firefox/"),
        ("Safari", "Version/"),
    ):
        if user_agent.startswith("Mozilla/") and mark in user_agent:
            version = user_agent.partition(mark)[2].partition(".")[0].partition(" ")[0]
            return f"{name} {version}"[:40]
    return user_agent.partition(" ")[0][:40]
