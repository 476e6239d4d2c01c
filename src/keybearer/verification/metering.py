"""What a request costs: its limit first, then its quota; a refused request changes nothing."""

from keybearer.domain.limits import Take, until_refill
from keybearer.domain.model import Grant, RateLimit, Refusal
from keybearer.verification.limiter import Limiter
from keybearer.verification.quota import Left, Quota
from keybearer.verification.shared import SharedLimiter


class Metering:
    """Limits and quotas of one process.

    Args:
        limiter: what this process counts.
        shared: the limits of all processes; without, this one counts alone.
    """

    def __init__(self, *, limiter: Limiter, quota: Quota, shared: SharedLimiter | None) -> None:
        self._limiter = limiter
        self._quota = quota
        self._shared = shared

    def take_alone(self, grant: Grant, limit: RateLimit, now: int, cost: int) -> Refusal | None:
        """Takes from a limit that this process counts alone; a refusal changes nothing."""
        window = self._limiter.window(grant.session.id, limit, now)
        if window.take(now, cost):
            return None
        return _limited(grant, window.retry_after(now, cost))

    async def take(self, grant: Grant, now: int, cost: int) -> tuple[Left | None, Refusal | None]:
        """Takes from the limit, wherever it is counted, and then from the quota, if there is one.

        What the quota refuses is given back to the limit.

        Returns:
            what the quota has left, if there is one, and a refusal, if it is one.
        """
        taken = await self._take_limit(grant, now, cost)
        if isinstance(taken, Refusal):
            return None, taken
        if not grant.metered:
            return None, None
        left: Left | None = None
        try:
            left = await self._quota.take(grant, cost)
        finally:
            if left is None and taken is not None and grant.limit is not None:
                await self._give_back(grant.id, grant.limit, now, cost, taken)
        return left, _spent(grant, now) if left is None else None

    async def _take_limit(self, grant: Grant, now: int, cost: int) -> Take | Refusal | None:
        """What was taken from the limit; None where there is none."""
        limit = grant.limit
        if limit is None:
            return None
        if self._shared is None:
            taken = self._limiter.take(grant.id, limit, now, cost)
        else:
            taken = await self._shared.take(grant.id, limit, now, cost)
        return taken if taken.accepted else _limited(grant, taken.retry_after_ms)

    async def _give_back(self, id: str, limit: RateLimit, now: int, cost: int, taken: Take) -> None:
        if self._shared is None:
            self._limiter.window(id, limit, now).give_back(now, cost)
        else:
            await self._shared.give_back(id, limit, now, cost, taken)


def _limited(grant: Grant, retry_after_ms: int) -> Refusal:
    return Refusal(
        code="RATE_LIMITED", retry_after_ms=retry_after_ms, limit=grant.limit, id=grant.id
    )


def _spent(grant: Grant, now: int) -> Refusal:
    """A quota with too little left, and when it is refilled, if ever."""
    key = grant.record
    if key is None or key.refill_amount is None or key.refill_interval_ms is None:
        return Refusal(code="USAGE_EXCEEDED", id=grant.id)
    return Refusal(
        code="USAGE_EXCEEDED",
        retry_after_ms=until_refill(
            key.refill_interval_ms, key.last_refill_at, key.created_at, now
        ),
        limit=RateLimit(maximum=key.refill_amount, window_ms=key.refill_interval_ms),
        id=grant.id,
    )
