"""`keybearer outbox`: mail that is only printed, for development."""

import click

from keybearer.cli.operator import operator
from keybearer.cli.output import answer, command, encode, visible


@command(None, "outbox")
@click.option("--limit", type=click.IntRange(1, 200), default=5, show_default=True)
async def outbox(*, limit: int, as_json: bool) -> None:
    """Shows the newest mails with their links, where no SMTP_URL is set."""
    from keybearer.domain.errors import Misuse
    from keybearer.operations import outbox as mails
    from keybearer.operations.wire import instant

    async with operator() as call:
        if call.app.settings.smtp_url is not None:
            raise Misuse("mail goes out by SMTP_URL; its texts are not kept")
        letters = await mails.recent(call.app, limit=limit)
    if as_json:
        shown = [
            {
                "id": letter.id,
                "to": letter.recipient,
                "subject": letter.subject,
                "text": letter.text,
                "createdAt": instant(letter.created_at),
            }
            for letter in letters
        ]
        answer(encode({"mails": shown}))
        return
    for letter in reversed(letters):
        answer(f"To: {visible(letter.recipient)}\nSubject: {visible(letter.subject)}\n")
        answer("\n".join(visible(line) for line in letter.text.splitlines()) + "\n")
