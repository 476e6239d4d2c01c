"""What is done beside the requests."""

from keybearer.adapters.sql import audit
from keybearer.operations import upkeep
from keybearer.operations.app import App
from tests.people import StandingClock


async def test_a_signing_key_is_followed_by_the_next_when_it_is_due(
    app: App, clock: StandingClock
) -> None:
    first = await app.signing.signer()
    assert await upkeep.rotate_signing(app) is None
    clock.advance(app.settings.signing_key_rotation)
    kid = await upkeep.rotate_signing(app)
    assert kid not in (None, first.kid)
    trail = await app.database.read(lambda tx: audit.newest(tx, limit=1))
    assert [(event.event, event.target_id, event.actor_id) for event in trail] == [
        ("signing_key.rotated", kid, "schedule")
    ]
