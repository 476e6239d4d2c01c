"""`auth.api`: the same operations as over HTTP, as typed calls."""

from collections.abc import Awaitable

import httpx2
import msgspec
import pytest

from keybearer import Auth, Failure, Misuse, Session, inputs
from keybearer.api import Bound
from keybearer.operations.app import App
from keybearer.operations.declaration import Empty
from tests.people import PASSWORD, log_in, make_key, person


def bound(auth: Auth) -> dict[str, Bound[object, object]]:
    return {each.operation.name: each for each in vars(auth.api).values() if type(each) is Bound}


async def test_every_operation_is_a_call(auth: Auth) -> None:
    calls = bound(auth)
    assert {each.name for each in auth.operations} == set(calls)
    for declared in auth.operations:
        assert calls[declared.name].operation is declared
        assert (calls[declared.name].__doc__ or "").startswith(declared.summary)


async def test_every_input_can_be_imported_from_one_place(auth: Auth) -> None:
    taken = {each.input.__name__ for each in auth.operations if each.input is not Empty}
    assert set(inputs.__all__) == taken
    assert all(issubclass(getattr(inputs, name), msgspec.Struct) for name in taken)


async def test_the_app_takes_a_person_from_sign_up_to_the_last_session(
    auth: Auth, app: App
) -> None:
    ada = await person(app)
    await auth.api.sign_up_email(
        inputs.SignUp(name="Bo", email="bo@example.com", password=PASSWORD), ip="203.0.113.9"
    )
    assert (await auth.api.users.find("bo@example.com")).email_verified_at is None

    pair = await auth.api.login(
        inputs.Login(email=ada.email, password=PASSWORD), headers={"User-Agent": "app/1"}
    )
    bearer = {"authorization": f"Bearer {pair.token}"}
    session = await auth.api.get_session(bearer)
    assert isinstance(session, Session)
    assert session.subject == ada.id
    (listed,) = await auth.api.list_sessions(owner=ada.id)
    assert listed.user_agent == "app/1"

    assert (await auth.api.introspect(inputs.AboutToken(token=pair.token))).active
    again = await auth.api.refresh(inputs.Refresh(refresh_token=pair.refresh_token))
    await auth.api.update_user(inputs.UpdateUser(name="Ada L."), headers=bearer)
    shown = await auth.api.get_session_and_user(headers=bearer)
    assert shown is not None
    assert shown.user.name == "Ada L."

    assert (await auth.api.revoke_sessions(owner=ada.id)).status
    assert await auth.api.get_session(bearer) is None
    with pytest.raises(Failure, match="INVALID_REFRESH_TOKEN"):
        await auth.api.refresh(inputs.Refresh(refresh_token=again.refresh_token))


async def test_a_call_with_headers_may_do_what_their_sender_may(
    auth: Auth, app: App, client: httpx2.AsyncClient
) -> None:
    await person(app)
    bearer = await log_in(client)
    mine = await auth.api.create_api_key(inputs.CreateKey(name="mine"), headers=bearer)
    assert mine.name == "mine"
    with pytest.raises(Failure) as refused:
        await auth.api.create_api_key(inputs.CreateKey(remaining=5), headers=bearer)
    assert refused.value.code == "SERVER_ONLY_PROPERTY"
    with pytest.raises(Failure) as nobody:
        await auth.api.list_api_keys(headers={})
    assert nobody.value.code == "UNAUTHORIZED"


async def test_the_operator_has_users_and_service_tokens(auth: Auth) -> None:
    user = await auth.api.users.create("eve@example.com", "Eve", PASSWORD, verified=True)
    found, total = await auth.api.users.page(search="eve")
    assert ([each.id for each in found], total) == ([user.id], 1)
    assert (await auth.api.users.disable(user.id)).disabled_at is not None
    with pytest.raises(Failure, match="USER_DISABLED"):
        await auth.api.login(inputs.Login(email=user.email, password=PASSWORD))
    await auth.api.users.enable(user.id)
    await auth.api.users.delete(user.id)

    token, secret = await auth.api.service_tokens.create("billing")
    service = {"authorization": f"Bearer {secret.reveal()}"}
    asked = inputs.VerifyKey(key="kb_unknown")
    assert not (await auth.api.verify_api_key(asked, headers=service)).valid
    assert (await auth.api.service_tokens.revoke(token.id)).nodes == 1
    assert [each.revoked_at is None for each in await auth.api.service_tokens.list()] == [False]
    with pytest.raises(Failure, match="INVALID_ACCESS_TOKEN"):
        await auth.api.verify_api_key(asked, headers=service)


async def test_a_named_owner_is_the_only_one_whose_things_are_found(auth: Auth, app: App) -> None:
    ada, bo = (await person(app)).id, (await person(app, "bo@example.com")).id
    hers = await auth.api.create_api_key(inputs.CreateKey(name="hers"), owner=ada)
    his = await auth.api.create_api_key(inputs.CreateKey(user_id=bo))
    id = hers.id
    theirs: list[Awaitable[object]] = [
        auth.api.get_api_key(inputs.GetKey(id=id), owner=bo),
        auth.api.update_api_key(inputs.UpdateKey(key_id=id, name="pwn"), owner=bo),
        auth.api.rotate_api_key(inputs.RotateKey(key_id=id), owner=bo),
        auth.api.revoke_api_key(inputs.RevokeKey(key_id=id), owner=bo),
        auth.api.get_usage(inputs.AskUsage(key_id=id), owner=bo),
    ]
    for act in theirs:
        with pytest.raises(Failure, match="KEY_NOT_FOUND"):
            await act
    listed = await auth.api.list_api_keys(owner=bo)
    assert [key.id for key in listed.api_keys] == [his.id]
    assert (await auth.api.list_api_keys()).total == 2
    unclear: list[Awaitable[object]] = [
        auth.api.list_api_keys(inputs.ListKeys(user_id=ada), owner=bo),
        auth.api.create_api_key(inputs.CreateKey(user_id=ada), owner=bo),
        auth.api.create_api_key(),
        auth.api.list_audit(),
    ]
    for act in unclear:
        with pytest.raises(Failure, match="VALIDATION_ERROR"):
            await act
    (event,) = (await auth.api.list_audit(inputs.AskAudit(target=hers.id), owner=ada)).events
    assert (event.event, event.actor_kind, event.actor_id) == ("key.created", "operator", "app")


async def test_no_owner_is_named_as_organizations_are(auth: Auth) -> None:
    with pytest.raises(Misuse, match="named by organization_id"):
        await auth.api.list_api_keys(owner="organization:acme")
    with pytest.raises(Failure, match="name an organization as organizationId"):
        await auth.api.create_api_key(inputs.CreateKey(user_id="organization:acme"))


@pytest.mark.parametrize("owner", ["", "*"])
async def test_nobody_can_be_named_as_owner(auth: Auth, owner: str) -> None:
    with pytest.raises(Misuse, match="is nobody's id"):
        await auth.api.list_api_keys(owner=owner)


async def test_what_a_key_does_for_itself_needs_the_key(
    auth: Auth, app: App, client: httpx2.AsyncClient
) -> None:
    await person(app)
    key = (await make_key(client, await log_in(client)))["key"]
    with pytest.raises(Misuse, match="revokeSelf is for the key itself"):
        await auth.api.revoke_self()
    assert (await auth.api.revoke_self(headers={"x-api-key": key})).success


async def test_a_need_that_is_no_permission_is_told(auth: Auth) -> None:
    for call in (auth.api.authenticate, auth.api.get_session):
        with pytest.raises(Misuse, match=r"permissions=.*resource"):
            await call({}, permissions="files")


async def test_a_missing_input_is_told(auth: Auth) -> None:
    with pytest.raises(Misuse, match="login: Missing required argument 'email'"):
        await auth.api.login()


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        (inputs.RotateKey(key_id="k", grace_period=2_592_001),
         "VALIDATION_ERROR", "gracePeriod must be a whole number from 0 to 2592000 or null."),
        (inputs.RotateKey(key_id="k", grace_period="1h"),  # type: ignore[arg-type]
         "VALIDATION_ERROR", "gracePeriod must be a whole number from 0 to 2592000 or null."),
        (inputs.RotateKey(key_id="k", grace_period={1, "a"}.add),  # type: ignore[arg-type]
         "VALIDATION_ERROR", "RotateKey: Encoding objects of type builtin_function_or_method"),
        (inputs.GetKey(id="k"), "UNKNOWN_FIELD", "has a field `id` that does not exist"),
    ],
)  # fmt: skip
async def test_an_input_from_a_program_keeps_to_its_rules(
    auth: Auth, asked: inputs.RotateKey, code: str, words: str
) -> None:
    with pytest.raises(Failure) as refused:
        await auth.api.rotate_api_key(asked, owner="ada")
    assert refused.value.code == code
    assert words in refused.value.message
