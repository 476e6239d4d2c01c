"""The reference as one page of HTML, made of the OpenAPI document.

It needs no script and no other host. `static/reference.js` adds a filter and copy buttons, where
there is script; the page lacks nothing without.
"""

import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from keybearer.domain.errors import PROBLEMS
from keybearer.web.described import GENERAL, Json
from keybearer.web.page import page

_UNDECLARED = frozenset(code for codes in GENERAL.values() for code in codes)
_SAMPLES: Mapping[str, object] = {
    "email": "ada@example.com",
    "password": "…",
    "newPassword": "…",
    "currentPassword": "…",
    "name": "Ada",
    "keyId": "019ab0f3-…",
    "id": "019ab0f3-…",
    "key": "kb_…",
    "keys": [{"key": "kb_…"}],
    "refreshToken": "kbr_…",
    "token": "…",
}
"""What stands in examples; secrets are never more than their beginning."""

_MORE: Mapping[str, Mapping[str, object]] = {
    "createApiKey": {"name": "CI", "expiresIn": 7_776_000},
    "updateApiKey": {"enabled": False},
    "rotateApiKey": {"gracePeriod": 3_600},
    "extendRotation": {"gracePeriod": 86_400},
    "verifyApiKey": {"permissions": {"files": ["read"]}, "ip": "203.0.113.7"},
}
_CREDENTIALS: Mapping[str, str] = {
    "bearer": '-H "Authorization: Bearer $TOKEN"',
    "apiKey": '-H "X-API-Key: $KEY"',
    "serviceToken": '-H "Authorization: Bearer $SERVICE_TOKEN"',
}


def render(document: Json, *, base: str) -> str:
    """The page.

    Args:
        document: as `openapi.document` makes it.
        base: below which everything lies.
    """
    by_tag: dict[str, list[tuple[str, str, Json]]] = {
        tag["name"]: [] for tag in document["tags"]
    }  # fmt: skip
    for path, item in document["paths"].items():
        for method, operation in item.items():
            by_tag[operation["tags"][0]].append((method.upper(), path, operation))
    return page(
        title="API reference",
        base=base,
        script="reference.js",
        body=f"""\
<a class="skip" href="#content">Skip to the reference</a>
<div class="columns">
<nav aria-label="Endpoints">
<p class="brand"><a href="#content">keybearer</a></p>
<div id="filter"></div>
{"".join(_nav(tag, operations) for tag, operations in by_tag.items())}
<h2><a href="#problems">Codes</a></h2>
</nav>
<main id="content">
<h1>API reference</h1>
{_introduction(document, base)}
{"".join(_section(tag, operations, document) for tag, operations in by_tag.items())}
{_general()}
{_problems()}
</main>
</div>""",
    )


def _nav(tag: str, operations: Iterable[tuple[str, str, Json]]) -> str:
    items = "".join(
        f'<li><a href="#{operation["operationId"]}">{_method(method)}'
        f"<span>{_breakable(path)}</span></a></li>"
        for method, path, operation in operations
    )
    return f'<h2><a href="#{_slug(tag)}">{escape(tag)}</a></h2><ul>{items}</ul>'


def _introduction(document: Json, base: str) -> str:
    server = document["servers"][0]["url"]
    return f"""\
<p class="lead">{escape(document["info"]["summary"])} All paths lie below
<code>{escape(server)}</code>. The same for machines:
<a href="{escape(base)}/openapi.json">openapi.json</a>.</p>
<pre><code>Authorization: Bearer kb_…      an API key, an access, session or service token
X-API-Key: kb_…                 an API key or a service token</code></pre>
<p>Send exactly one of them, once. Bodies are JSON in camelCase with at most 64 KB; instants are
ISO 8601 in UTC with milliseconds, durations in requests are seconds. A field that an endpoint does
not know is refused, and nothing is changed then. Every refusal is
<code>application/problem+json</code>: decide by its <code>code</code>, show its
<code>message</code>, and quote its <code>requestId</code> when you ask for help.</p>
"""


# --- operations -----------------------------------------------------------------------------


def _section(tag: str, operations: Iterable[tuple[str, str, Json]], document: Json) -> str:
    articles = "".join(_operation(*each, document) for each in operations)
    return f'<section id="{_slug(tag)}"><h2>{escape(tag)}</h2>{articles}</section>'


def _operation(method: str, path: str, operation: Json, document: Json) -> str:
    name = operation["operationId"]
    return f"""\
<article id="{name}" class="operation">
<h3><a href="#{name}">{_method(method)}<code>{_breakable(path)}</code></a></h3>
<p class="summary">{_prose(operation["summary"])}</p>
{_paragraphs(operation["description"])}
<p class="who"><b>Who may</b> {escape(operation.get("x-who", "anyone"))}</p>
{_asked(operation, document)}
{_answers(operation, document)}
<pre class="example"><code>{escape(_curl(method, path, operation, document))}</code></pre>
</article>
"""


def _asked(operation: Json, document: Json) -> str:
    parameters = operation.get("parameters", [])
    rows = [
        _row(each["name"], each["schema"], document, needed=each["required"], place=each["in"])
        for each in parameters
    ]
    schema = _body_schema(operation, document)
    # What may come in the query or in the body is told once.
    if schema is not None and not any(each["in"] == "query" for each in parameters):
        rows = _rows(schema, document) + rows
    return _table("Field", rows)


def _rows(schema: Json, document: Json, *, place: str = "") -> list[str]:
    return [
        _row(name, each, document, needed=name in schema.get("required", ()), place=place)
        for name, each in schema.get("properties", {}).items()
    ]


def _row(name: str, schema: Json, document: Json, *, needed: bool, place: str) -> str:
    notes = [place] if place in ("path", "header") else []
    if needed:
        notes.append("needed")
    elif schema.get("default") not in (None, "", []):
        notes.append(f"else {json.dumps(schema['default'])}")
    notes += _bounds(schema)
    return (
        f"<tr><th scope=row><code>{escape(name)}</code></th>"
        f"<td>{escape(_type(schema, document))}</td><td>{escape(', '.join(notes))}</td></tr>"
    )


def _table(title: str, rows: Iterable[str]) -> str:
    body = "".join(rows)
    if not body:
        return ""
    return (
        f'<div class="scroll"><table class="fields"><thead><tr><th scope="col">{title}</th>'
        '<th scope="col">Type</th><th scope="col">Notes</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _answers(operation: Json, document: Json) -> str:
    lines = []
    for status, answer in operation["responses"].items():
        codes = [code for code in _codes(answer) if code not in _UNDECLARED]
        if status in ("200", "302"):
            lines.append(
                f"<dt>{_status(status)}</dt><dd>{_good_answer(status, answer, document)}</dd>"
            )
        elif codes:
            shown = " ".join(_code(code) for code in codes)
            lines.append(f"<dt>{_status(status)}</dt><dd>{shown}</dd>")
    general = sorted(
        {
            status
            for status, answer in operation["responses"].items()
            if any(code in _UNDECLARED for code in _codes(answer))
        }
    )
    if general:
        lines.append(
            f'<dt class="also">{" ".join(general)}</dt>'
            '<dd><a href="#general">what its kind of endpoint can answer</a></dd>'
        )
    return f'<dl class="answers">{"".join(lines)}</dl>'


def _good_answer(status: str, answer: Json, document: Json) -> str:
    if status == "302":
        return "leads on to <code>callbackURL</code>"
    headers = "".join(
        f" <code>{escape(name)}</code>"
        for name in answer.get("headers", {})
        if name.startswith("X-Auth-")
    )
    for media_type, content in answer.get("content", {}).items():
        schema, several = _resolved(content["schema"], document)
        rows = "".join(_rows(schema, document))
        kind = "a list of" if several else ""
        if rows:
            name = escape(schema.get("title", media_type))
            return (
                f"<details><summary>{kind} <code>{name}</code></summary>"
                f"{_table('Field', [rows])}</details>"
            )
        return f"<code>{escape(media_type)}</code>"
    return headers or "done"


def _codes(answer: Json) -> list[str]:
    content = answer.get("content", {}).get("application/problem+json")
    return [] if content is None else list(content["schema"]["properties"]["code"]["enum"])


# --- codes ----------------------------------------------------------------------------------


def _general() -> str:
    rows = "".join(
        f"<tr><th scope=row>{escape(who)}</th>"
        f"<td>{' '.join(_code(code) for code in codes)}</td></tr>"
        for who, codes in GENERAL.items()
    )
    return f"""\
<section id="general"><h2>What every endpoint can answer</h2>
<p>Beside its own codes, an endpoint answers those of its kind.</p>
<div class="scroll"><table class="general"><tbody>{rows}</tbody></table></div></section>
"""


def _problems() -> str:
    rows = "".join(
        f'<tr id="problem-{code}"><th scope=row><a href="#problem-{code}"><code>{code}</code></a>'
        f"</th><td>{row.status}</td><td>{escape(row.message)}</td></tr>"
        for code, row in PROBLEMS.items()
    )
    return f"""\
<section id="problems"><h2>Codes</h2>
<p>A code never changes its meaning. The sentence may become more precise.</p>
<div class="scroll"><table class="problems"><thead><tr><th scope="col">Code</th>
<th scope="col">Status</th><th scope="col">Sentence</th></tr></thead>
<tbody>{rows}</tbody></table></div></section>
"""


def _code(code: str) -> str:
    sentence = escape(PROBLEMS[code].message)
    return f'<a class="code" href="#problem-{code}" title="{sentence}">{code}</a>'


# --- schemas as words -----------------------------------------------------------------------


def _resolved(schema: Json, document: Json) -> tuple[Json, bool]:
    """The object that a schema is, or is a list of; whether it is a list."""
    several = False
    while True:
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        elif schema.get("type") == "array":
            schema, several = schema["items"], True
        elif "anyOf" in schema:
            schema = next(each for each in schema["anyOf"] if each != {"type": "null"})
        else:
            return schema, several


def _type(schema: Json, document: Json) -> str:
    if "$ref" in schema:
        return str(_resolved(schema, document)[0]["title"])
    if "anyOf" in schema:
        return " or ".join(_type(each, document) for each in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type", "any JSON")
    if kind == "array":
        return f"list of {_type(schema['items'], document)}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'], document)}"
    if schema.get("format") == "date-time":
        return "instant"
    return str(kind)


def _bounds(schema: Json) -> list[str]:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return [f"{least:,} to {most:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")]
    for each in (schema, *schema.get("anyOf", ())):
        if "maxLength" in each:
            return [f"{each['maxLength']} characters at the most"]
    return []


def _body_schema(operation: Json, document: Json) -> Json | None:
    for content in operation.get("requestBody", {}).get("content", {}).values():
        return _resolved(content["schema"], document)[0]
    return None


def _curl(method: str, path: str, operation: Json, document: Json) -> str:
    url = document["servers"][0]["url"] + re.sub(r"\{\w+\}", "$TOKEN", path)
    needed = [
        each["name"]
        for each in operation.get("parameters", [])
        if each["in"] == "query" and (each["required"] or method == "DELETE")
    ]
    pairs = [f"{name}={_SAMPLES[name]}" for name in needed if name in _SAMPLES]
    if operation["operationId"] == "forward":
        pairs = ["permissions=files:read"]
    url += "?" + "&".join(pairs) if pairs else ""
    lines = [f'curl "{url}"' if method == "GET" else f'curl -X {method} "{url}"']
    schemes = [name for each in operation["security"] for name in each]
    wanted = next((_CREDENTIALS[name] for name in schemes if name in _CREDENTIALS), None)
    if wanted is not None and {} not in operation["security"]:
        lines.append(wanted)
    lines += _curl_body(method, operation, document)
    return " \\\n  ".join(lines)


def _curl_body(method: str, operation: Json, document: Json) -> list[str]:
    schema = _body_schema(operation, document)
    if schema is None or method == "DELETE":
        return []
    needed: dict[str, Any] = {
        name: _SAMPLES.get(name, "…") for name in schema["required"]
    } | dict(_MORE.get(operation["operationId"], {}))  # fmt: skip
    if "application/json" not in operation["requestBody"]["content"]:
        return [f"--data-urlencode '{name}={value}'" for name, value in needed.items()]
    return [f"--json '{json.dumps(needed, ensure_ascii=False)}'"] if needed else []


# --- words as HTML --------------------------------------------------------------------------


def _method(method: str) -> str:
    return f'<span class="method {method.lower()}">{method}</span>'


def _status(status: str) -> str:
    return f'<span class="status s{status[0]}">{status}</span>'


def _breakable(path: str) -> str:
    return escape(path).replace("/", "/<wbr>").replace("-", "-<wbr>")


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_prose(each)}</p>" for each in text.split("\n\n") if each.strip())


def _prose(text: str) -> str:
    """Plain text in which `code` is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _slug(tag: str) -> str:
    return "tag-" + re.sub(r"[^a-z0-9]+", "-", tag.lower())
