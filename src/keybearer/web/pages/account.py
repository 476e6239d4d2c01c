"""Where one is logged in, the password, what happened, and what was not you."""

from keybearer.domain.errors import Failure
from keybearer.operations.accounts import UpdateUser, update_user
from keybearer.operations.calendar import create_calendar, revoke_calendar
from keybearer.operations.declaration import Empty
from keybearer.operations.disowning import DisownEvent, disown_event
from keybearer.operations.recovery import ChangePassword
from keybearer.operations.recovery import change_password as change_the_password
from keybearer.operations.reports import AskAudit, list_audit
from keybearer.operations.sessions import (
    RevokeSession,
    list_sessions,
    revoke_other_sessions,
    revoke_session,
)
from keybearer.web.pages.forms import Form, checked
from keybearer.web.pages.visit import Answer, Visit

GROUPS = ("key.", "session.", "login.", "password.", "user.")
"""What the trail can be narrowed to: the beginnings of events."""

_PAGE = 25


# --- sessions ---


async def show_sessions(visit: Visit) -> Answer:
    """Where one is logged in."""
    return visit.html("sessions.html", sessions=await visit.ask(list_sessions, Empty()))


async def end_sessions(visit: Visit) -> Answer:
    """Ends one session, or all but this one."""
    if visit.fields.get("action") == "others":
        await visit.ask(revoke_other_sessions, Empty())
        return visit.go(visit.url("account/sessions"), notice="others-ended")
    token = visit.fields.get("session", "")
    await visit.ask(revoke_session, checked(RevokeSession, {"token": token}))
    if visit.replies:  # it was this one
        return visit.go(visit.url("login"), notice="logged-out")
    return visit.go(visit.url("account/sessions"), notice="session-ended")


# --- security ---


async def show_security(visit: Visit) -> Answer:
    """The password, the language of mails, and the trail."""
    return await _security(visit, Form())


async def _security(visit: Visit, form: Form, *, status: int = 200) -> Answer:
    query = visit.query
    page = query.get("page", "1")
    shown = int(page) if page.isascii() and page.isdigit() and 1 <= len(page) <= 4 else 1
    group = query.get("group", "") if query.get("group") in GROUPS else ""
    outcome = "refused" if query.get("outcome") == "refused" else ""
    trail = await visit.ask(
        list_audit,
        checked(
            AskAudit,
            {
                "limit": _PAGE,
                "offset": (max(1, shown) - 1) * _PAGE,
                "event": group,
                **({"outcome": outcome} if outcome else {}),
            },
        ),
    )
    last = max(1, -(-trail.total // _PAGE))
    if shown > last:
        return visit.go(visit.url("account/security", group=group, outcome=outcome, page=str(last)))
    return visit.html(
        "security.html",
        status=status,
        form=form,
        group=group,
        groups=GROUPS,
        last=last,
        outcome=outcome,
        number_shown=max(1, shown),
        trail=trail,
    )


async def change_password(visit: Visit) -> Answer:
    """Changes the password; every other session ends, and this one goes on with a new token."""
    form = Form()
    values = {
        "new_password": visit.fields.get("new_password", ""),
        "current_password": visit.fields.get("password", ""),
    }
    try:
        await visit.ask(change_the_password, checked(ChangePassword, values))
    except Failure as failure:
        return await _security(visit, form, status=form.refuse(visit, failure))
    return visit.go(visit.url("account/security"), notice="password")


async def change_language(visit: Visit) -> Answer:
    """Sets the language of mails."""
    locale = visit.fields.get("locale", "")
    await visit.ask(update_user, UpdateUser(locale=locale))
    return visit.go(visit.url("account/security"), notice="language")


async def disown(visit: Visit) -> Answer:
    """Ends what the event names, and says what to do next."""
    id = visit.fields.get("event", "")
    done = await visit.ask(disown_event, checked(DisownEvent, {"event_id": id}))
    if visit.replies:  # it was this very login
        return visit.go(visit.url("login"), notice="disowned")
    return visit.html("disowned.html", done=done)


# --- the calendar of expiries ---


async def change_calendar(visit: Visit) -> Answer:
    """Makes the address of the calendar and shows it, this once; or ends it."""
    action = visit.fields.get("action", "")
    if action not in ("make", "end"):
        raise Failure("VALIDATION_ERROR")
    if action == "end":
        await visit.ask(revoke_calendar, Empty())
        return visit.go(visit.url("account/api-keys"), notice="calendar-ended")
    return visit.html("calendar.html", calendar=await visit.ask(create_calendar, Empty()))
