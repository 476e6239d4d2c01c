"""Sign up, prove the address, log in and out, choose a new password."""

from keybearer.domain.errors import Failure
from keybearer.operations.accounts import AskForLink, SignUp, send_verification_email, sign_up_email
from keybearer.operations.recovery import (
    AskForReset,
    ResetPassword,
    request_password_reset,
    reset_password,
)
from keybearer.operations.sessions import SignIn, SignOut, sign_in_email, sign_out
from keybearer.web.pages.forms import Form, checked
from keybearer.web.pages.visit import Answer, Visit


async def show_login(visit: Visit) -> Answer:
    """The log-in; whoever is logged in goes on."""
    if await visit.known() is not None:
        return visit.go(visit.next_page(visit.site.front))
    return _login(visit, Form({"email": visit.query.get("email", "")}))


async def log_in(visit: Visit) -> Answer:
    """Logs in and goes on to where one wanted to."""
    form = Form({"email": visit.fields.get("email", "")})
    values = {
        "email": visit.fields.get("email", "").strip(),
        "password": visit.fields.get("password", ""),
        "remember_me": "remember" in visit.fields,
    }
    try:
        await visit.ask(sign_in_email, checked(SignIn, values))
    except Failure as failure:
        return _login(visit, form, status=form.refuse(visit, failure), code=failure.code)
    return visit.go(visit.next_page(visit.site.front))


def _login(visit: Visit, form: Form, *, status: int = 200, code: str = "") -> Answer:
    to = visit.fields.get("next") or visit.query.get("next") or ""
    shown = to if visit.site.is_page(to) else ""
    return visit.html("login.html", status=status, form=form, next=shown, code=code)


async def log_out(visit: Visit) -> Answer:
    """Ends the login."""
    session = await visit.known()
    if session is not None:
        visit.check_token(session)
    await visit.ask(sign_out, SignOut())
    return visit.go(visit.url("login"), notice="logged-out")


async def show_sign_up(visit: Visit) -> Answer:
    """The sign-up."""
    if await visit.known() is not None:
        return visit.go(visit.url(visit.site.front))
    return visit.html("sign-up.html", form=Form())


async def sign_up(visit: Visit) -> Answer:
    """Makes the account, and says what comes by mail, whether or not there was one."""
    form = Form({name: visit.fields.get(name, "") for name in ("name", "email")})
    say = visit.language
    if not visit.fields.get("name", "").strip():
        form.errors["name"] = say("Enter your name.")
        return visit.html("sign-up.html", status=400, form=form)
    values = {
        "name": visit.fields.get("name", "").strip(),
        "email": visit.fields.get("email", "").strip(),
        "password": visit.fields.get("new_password", ""),
        "callback_url": visit.url("verified"),
        "locale": visit.language.tag,
    }
    try:
        await visit.ask(sign_up_email, checked(SignUp, values))
    except Failure as failure:
        status = form.refuse(visit, failure, wrong="new_password")
        return visit.html("sign-up.html", status=status, form=form)
    return visit.go(visit.url("check-mail", email=visit.fields.get("email", "").strip()))


async def show_check_mail(visit: Visit) -> Answer:
    """That a mail is on its way."""
    form = Form({"email": visit.query.get("email", "")})
    return visit.html("check-mail.html", form=form, purpose=visit.query.get("for", ""))


async def mail_again(visit: Visit) -> Answer:
    """Another mail to verify the address, for whoever did not get the first."""
    email = visit.fields.get("email", "").strip()
    form = Form({"email": email})
    try:
        asked = checked(AskForLink, {"email": email, "callback_url": visit.url("verified")})
        await visit.ask(send_verification_email, asked)
    except Failure as failure:
        status = form.refuse(visit, failure)
        return visit.html("check-mail.html", status=status, form=form, purpose="")
    return visit.go(visit.url("check-mail", email=email), notice="sent-again")


async def show_verified(visit: Visit) -> Answer:
    """Where the link of the first mail leads: it has worked, or a new one is needed."""
    await visit.known()
    return visit.html("verified.html", failed="error" in visit.query, form=Form())


async def show_forgot(visit: Visit) -> Answer:
    """Who has forgotten the password."""
    return visit.html("forgot-password.html", form=Form({"email": visit.query.get("email", "")}))


async def forgot(visit: Visit) -> Answer:
    """Mails a link for a new password, and says the same whoever it is."""
    email = visit.fields.get("email", "").strip()
    form = Form({"email": email})
    try:
        asked = checked(AskForReset, {"email": email, "redirect_to": visit.url("reset-password")})
        await visit.ask(request_password_reset, asked)
    except Failure as failure:
        status = form.refuse(visit, failure)
        return visit.html("forgot-password.html", status=status, form=form)
    return visit.go(visit.url("check-mail", **{"for": "password", "email": email}))


async def show_reset(visit: Visit) -> Answer:
    """A new password, with the token that the link brought."""
    return _reset(visit, Form(), visit.query.get("token", ""), failed="error" in visit.query)


async def reset(visit: Visit) -> Answer:
    """Sets the new password."""
    form, token = Form(), visit.fields.get("token", "")
    values = {"new_password": visit.fields.get("new_password", ""), "token": token}
    try:
        await visit.ask(reset_password, checked(ResetPassword, values))
    except Failure as failure:
        status = form.refuse(visit, failure, wrong="new_password")
        return _reset(visit, form, token, status=status, failed=failure.code == "INVALID_TOKEN")
    return visit.go(visit.url("login"), notice="password-set")


def _reset(visit: Visit, form: Form, token: str, *, failed: bool, status: int = 200) -> Answer:
    failed = failed or not token
    return visit.html("reset-password.html", status=status, form=form, token=token, failed=failed)
