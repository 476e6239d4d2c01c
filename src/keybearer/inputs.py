"""What operations take: every input struct, in one place to import from."""

from keybearer.operations.accounts import AskForLink, ConfirmLink, DeleteUser, SignUp, UpdateUser
from keybearer.operations.calendar import ReadCalendar
from keybearer.operations.disowning import DisownEvent
from keybearer.operations.keybulk import RevokeKeys, UpdateKeys
from keybearer.operations.keyedits import UpdateKey
from keybearer.operations.keyends import RevokeKey, RotateKey
from keybearer.operations.keys import CreateKey, GetKey, ListKeys
from keybearer.operations.links import OpenLink
from keybearer.operations.recovery import AskForReset, ChangePassword, ResetPassword
from keybearer.operations.reports import AskActivity, AskAudit, AskDailyUsage, AskUsage
from keybearer.operations.rotation import AboutRotation, ExtendRotation
from keybearer.operations.sessions import AskSession, RevokeSession, SignIn, SignOut
from keybearer.operations.stepup import VerifyPassword
from keybearer.operations.tokens import AboutToken, Login, Logout, Refresh, RevokeToken
from keybearer.operations.verify import VerifyBatch, VerifyKey

__all__ = [
    "AboutRotation",
    "AboutToken",
    "AskActivity",
    "AskAudit",
    "AskDailyUsage",
    "AskForLink",
    "AskForReset",
    "AskSession",
    "AskUsage",
    "ChangePassword",
    "ConfirmLink",
    "CreateKey",
    "DeleteUser",
    "DisownEvent",
    "ExtendRotation",
    "GetKey",
    "ListKeys",
    "Login",
    "Logout",
    "OpenLink",
    "ReadCalendar",
    "Refresh",
    "ResetPassword",
    "RevokeKey",
    "RevokeKeys",
    "RevokeSession",
    "RevokeToken",
    "RotateKey",
    "SignIn",
    "SignOut",
    "SignUp",
    "UpdateKey",
    "UpdateKeys",
    "UpdateUser",
    "VerifyBatch",
    "VerifyKey",
    "VerifyPassword",
]
