"""What the mails say: what happened, when, the link, and what to do if it was not you.

Plain text, short, and nothing in it that a stranger could have chosen: whoever signs up with
somebody else's address must not write to them through us. Links begin with BASE_URL and where
we are mounted, never with what a request says.
"""

from keybearer.adapters.mail import Mail
from keybearer.domain.credentials import Secret
from keybearer.domain.instants import iso
from keybearer.operations.app import App
from keybearer.operations.links import with_parameter


def verify_address(app: App, to: str, token: Secret, now: int, callback: str | None) -> Mail:
    """The link that proves an address, after a sign-up."""
    url = with_parameter(f"{app.api}/verify-email", "token", token.reveal())
    return Mail(
        to=to,
        subject="Verify your e-mail address",
        text=f"""\
On {_when(now)} somebody signed up at {app.settings.base_url} with this address.

If it was you, open this link within 24 hours to verify the address:

{_leading_to(url, callback)}

If it was not you, do not open it. To take the account over instead, ask for a new password at
{app.settings.base_url}: that ends whatever was done with it before.
""",
    )


def choose_password(app: App, to: str, token: Secret, now: int, callback: str | None) -> Mail:
    """The link for an account that has no password until the owner of the address sets one."""
    return Mail(
        to=to,
        subject="Choose your password",
        text=f"""\
On {_when(now)} an account at {app.settings.base_url} was asked for with this address, and it has
no password that we know to be yours.

If you want the account, open this link within one hour and choose a password:

{_leading_to(f"{app.api}/reset-password/{token.reveal()}", callback)}

If you do not, you need not do anything: without this link nobody can use it.
""",
    )


def address_in_use(app: App, to: str, now: int) -> Mail:
    """To whoever has an account, when somebody signs up with the same address."""
    return Mail(
        to=to,
        subject="You already have an account",
        text=f"""\
On {_when(now)} somebody tried to sign up at {app.settings.base_url} with your address.

You have an account already, and nothing about it was changed. If it was you, log in; if you
have forgotten the password, ask for a new one there.

If it was not you, you need not do anything.
""",
    )


def reset_password(app: App, to: str, token: Secret, now: int, callback: str | None) -> Mail:
    """The link for a new password."""
    return Mail(
        to=to,
        subject="Set a new password",
        text=f"""\
On {_when(now)} somebody asked for a new password for your account at {app.settings.base_url}.

If it was you, open this link within one hour; it works once:

{_leading_to(f"{app.api}/reset-password/{token.reveal()}", callback)}

If it was not you, you need not do anything: your password stays as it is.
""",
    )


def password_changed(app: App, to: str, now: int) -> Mail:
    """After a new password was set, whichever way."""
    return Mail(
        to=to,
        subject="Your password was changed",
        text=f"""\
On {_when(now)} the password of your account at {app.settings.base_url} was changed, and the other
devices were logged out.

If it was not you, ask for a new password there at once: that ends every login. Then look
through your API keys, and revoke those that you do not know.
""",
    )


def refresh_reused(app: App, to: str, now: int) -> Mail:
    """After a refresh token came that was spent before: stolen, or copied."""
    return Mail(
        to=to,
        subject="A device was logged out to protect your account",
        text=f"""\
On {_when(now)} somebody used a login of your account at {app.settings.base_url} with an old copy of
its refresh token. Either that copy was stolen, or an app keeps copies that it should not keep.
The login was ended; log in again on the device.

If you do not know why this happened, change your password, and look through your API keys.
""",
    )


def account_deleted(app: App, to: str, now: int) -> Mail:
    """After an account was deleted."""
    return Mail(
        to=to,
        subject="Your account was deleted",
        text=f"""\
On {_when(now)} your account at {app.settings.base_url} was deleted. Its API keys and logins have
stopped working.

If it was not you, tell whoever runs {app.settings.base_url}: the audit trail says who it was.
""",
    )


def _leading_to(url: str, callback: str | None) -> str:
    return url if callback is None else with_parameter(url, "callbackURL", callback)


def _when(now: int) -> str:
    return f"{iso(now)[:16].replace('T', ' at ')} UTC"
