"""The OpenAPI 3.1 document, made of the declared operations.

    Operation ──┬── input   ──▶ parameters (GET, DELETE) or requestBody (JSON, form)
                ├── output  ──▶ 200; 302 where it redirects
                ├── access  ──▶ security, and the codes of credentials
                └── errors  ──▶ one problem answer for each status, with its codes

What lies beside the operations (forward-auth, health, metrics) is in `described.py`.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from keybearer.operations.declaration import Empty, Operation
from keybearer.settings import Settings
from keybearer.web import described
from keybearer.web.described import Json, codes_of, problem_answers

API_VERSION = "1"
"""Of the API, not of the program: that is nobody's business."""

_REF = "#/components/schemas/{name}"
_ANY = "any JSON value"
_ORDER = ("Accounts", "Sessions", "Tokens", "API keys", "Verification", "Audit", "Server")
_IDEMPOTENT = frozenset({"createApiKey"})
"""Operations that heed `Idempotency-Key`."""


def document(
    operations: Iterable[Operation[Any, Any]],
    settings: Settings,
    base: str,
    *,
    headers: Iterable[str] = (),
) -> Json:
    """The whole API as it is served with these settings.

    Management operations are left out while TOKEN_MANAGEMENT is off, as they answer 404 then.

    Args:
        base: the path below which everything lies.
        headers: names of more headers for keys, as `headers=` of `api_key()` has them.
    """
    own = {f"apiKey.{name}": name for name in dict.fromkeys(headers) if name != "x-api-key"}
    served = [each for each in operations if settings.token_management or not each.management]
    schemas, components = _schemas(served)
    paths: dict[str, Json] = {}
    for declared in served:
        asked, answered = declared.input.__name__, schemas[declared.output]
        for number, (method, path) in enumerate(
            ((declared.method, declared.path), *declared.aliases)
        ):
            described_operation = _operation(declared, method, path, answered, components[asked])
            if number:
                described_operation["operationId"] += f"Alias{number}"
                described_operation["description"] += (
                    f"\n\nThe same as `{declared.method} {declared.path}`."
                )
            paths.setdefault(path, {})[method.lower()] = described_operation
    for path, item in described.PATHS.items():
        paths.setdefault(path, {}).update(item)
    for item in paths.values():
        item.update({method: _in_more_headers(each, own) for method, each in item.items()})
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "keybearer",
            "version": API_VERSION,
            "summary": "API keys that people manage themselves, and bearer tokens from a login.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": settings.base_url + base}],
        "tags": [{"name": tag} for tag in _tags(paths)],
        "paths": paths,
        "components": {
            "schemas": {**components, **described.SCHEMAS},
            "securitySchemes": described.security_schemes(settings, own),
            "headers": described.HEADERS,
        },
    }


# --- one operation --------------------------------------------------------------------------


def _operation(
    declared: Operation[Any, Any],
    method: str,
    path: str,
    answered: Json,
    shape: Json,
) -> Json:
    in_query = declared.method in ("GET", "DELETE")
    described_operation: Json = {
        "operationId": declared.name,
        "summary": declared.summary,
        "description": declared.description,
        "tags": [declared.tag],
        "security": described.SECURITY[declared.access, declared.verdict],
        "x-who": declared.access.value,
        "responses": _answers(declared, method, answered),
    }
    # DELETE takes the fields from either: RFC 9110 section 9.3.5 gives its body no meaning.
    either = in_query and method == "DELETE"
    if in_query and method != "POST":
        described_operation["parameters"] = _parameters(shape, path, optional=either)
    if not in_query or method == "POST" or either:
        schema = {"schema": {"$ref": _REF.format(name=declared.input.__name__)}}
        described_operation["requestBody"] = {
            "required": bool(shape["required"]) and not either,
            "content": dict.fromkeys(_media_types(declared), schema),
        }
        if either:
            described_operation["requestBody"]["description"] = "In place of the query."
    if declared.name in _IDEMPOTENT:
        described_operation["parameters"] = [described.IDEMPOTENCY_KEY]
    return described_operation


def _in_more_headers(described_operation: Json, schemes: Iterable[str]) -> Json:
    """An operation that takes an API key takes it in the app's own headers as well."""
    security = described_operation["security"]
    if described.API_KEY not in security:
        return described_operation
    more: list[Json] = [{scheme: []} for scheme in schemes]
    return {**described_operation, "security": [*security, *more]}


def _media_types(declared: Operation[Any, Any]) -> list[str]:
    """What a body may be sent as."""
    types = [] if declared.form else ["application/json"]
    if declared.form or declared.forms:
        types.append("application/x-www-form-urlencoded")
    return types


def _parameters(shape: Json, path: str, *, optional: bool) -> list[Json]:
    parameters = []
    for name, schema in shape["properties"].items():
        in_path = f"{{{name}}}" in path
        parameter: Json = {
            "name": name,
            "in": "path" if in_path else "query",
            "required": in_path or (name in shape["required"] and not optional),
            "schema": _without_null(schema),
        }
        if in_path:
            parameter["schema"] = {"minLength": 1, **parameter["schema"]}
        if schema.get("type") == "array":
            parameter |= {"style": "form", "explode": True}
        parameters.append(parameter)
    return parameters


def _without_null(schema: Json) -> Json:
    """A query has no null: what may be null may be left out."""
    if "anyOf" not in schema:
        return schema
    others = [each for each in schema["anyOf"] if each != {"type": "null"}]
    if len(others) != 1:
        return schema
    return {**others[0], **{k: v for k, v in schema.items() if k not in ("anyOf", "default")}}


def _answers(declared: Operation[Any, Any], method: str, answered: Json) -> Json:
    headers = {
        **described.COMMON_HEADERS,
        **(described.SESSION_HEADERS if declared.session is not None else {}),
    }
    answers: Json = {
        "200": {
            "description": "Done." if declared.output is Empty else "The answer.",
            "headers": headers,
            "content": {declared.media_type.partition(";")[0]: {"schema": answered}},
        }
    }
    if declared.redirects:
        answers["302"] = {
            "description": "Leads on to `callbackURL`.",
            "headers": {**headers, **described.header("Location")},
        }
    return answers | problem_answers(codes_of(declared, method))


# --- schemas --------------------------------------------------------------------------------


def _schemas(served: list[Operation[Any, Any]]) -> tuple[dict[Any, Json], dict[str, Json]]:
    types: list[Any] = []
    for declared in served:
        for type_ in (declared.input, declared.output):
            if type_ not in types:
                types.append(type_)
    found, components = msgspec.json.schema_components(
        types, schema_hook=_any_value, ref_template=_REF
    )
    inputs = {declared.input.__name__ for declared in served}
    sent = functools.reduce(lambda known, each: known | _structs(each), types, set[type]())
    for struct in sent:
        shape = components[struct.__name__]
        if struct.__name__ not in inputs and not _may_lack(struct):
            # What we answer is whole: a field with a default is there as well.
            shape["required"] = _always_there(struct)
    return dict(zip(types, (_tidy(each) for each in found), strict=True)), {
        name: _tidy(shape) for name, shape in sorted(components.items())
    }


def _any_value(_type: type) -> Json:
    return {"$comment": _ANY}


def _structs(type_: Any) -> set[Any]:
    """Every struct that a type is made of."""
    found: set[Any] = set()
    todo: list[msgspec.inspect.Type] = [msgspec.inspect.type_info(type_)]
    while todo:
        info = todo.pop()
        if isinstance(info, msgspec.inspect.StructType) and info.cls not in found:
            found.add(info.cls)
            todo += [field.type for field in info.fields]
        elif isinstance(info, msgspec.inspect.UnionType):
            todo += info.types
        elif isinstance(info, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
            todo.append(info.item_type)
        elif isinstance(info, msgspec.inspect.DictType):
            todo.append(info.value_type)
        elif isinstance(info, msgspec.inspect.Metadata):
            todo.append(info.type)
    return found


def _may_lack(struct: Any) -> bool:
    return bool(struct.__struct_config__.omit_defaults)


def _always_there(struct: type[msgspec.Struct]) -> list[str]:
    return [
        field.encode_name
        for field in msgspec.structs.fields(struct)
        if field.default is not msgspec.UNSET
    ]


_TIDY: Mapping[str, Callable[[Any], Any]] = {"description": inspect.cleandoc}


def _tidy(value: Any) -> Any:
    """A schema without what only its maker needed."""
    if isinstance(value, dict):
        return {
            name: _TIDY[name](each) if name in _TIDY and isinstance(each, str) else _tidy(each)
            for name, each in value.items()
            if (name, each) != ("$comment", _ANY)
        }
    return [_tidy(each) for each in value] if isinstance(value, list) else value


def _tags(paths: Mapping[str, Json]) -> list[str]:
    """The groups that have something, in the order in which one meets them."""
    found = {tag for item in paths.values() for each in item.values() for tag in each["tags"]}
    known = [tag for tag in _ORDER if tag in found]
    return known + sorted(found.difference(_ORDER))
