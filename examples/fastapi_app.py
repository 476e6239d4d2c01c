"""Three lines in a FastAPI app. Run: uvicorn examples.fastapi_app:app"""

from typing import Annotated

from fastapi import Depends, FastAPI

from keybearer import Auth, Session, api_key, bearer
from keybearer.integrations.fastapi import REFUSALS, Guard, describe

auth = Auth(  # 1
    database="sqlite:///app.db",
    plugins=[api_key(permissions={"reports": ["read", "write"]}), bearer()],
    token_management=True,
)
Caller = Annotated[Session, Depends(Guard(auth))]  # 2
MayWrite = Annotated[Session, Depends(Guard(auth, "reports:write"))]
Anyone = Annotated[Session | None, Depends(Guard(auth, optional=True))]

api = FastAPI(title="Reports")
describe(api)


@api.get("/")
async def hello(session: Anyone) -> dict[str, str]:
    return {"hello": session.subject if session else "stranger"}


@api.get("/report", responses=REFUSALS)
async def report(session: Caller) -> dict[str, str]:
    return {"report": "all is well", "for": session.subject}


@api.post("/report", responses=REFUSALS)
async def write_report(session: MayWrite) -> dict[str, str]:
    return {"writtenBy": session.subject}


app = auth.mount(api)  # 3
