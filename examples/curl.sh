#!/usr/bin/env bash
# The whole way with curl: sign up, verify, log in, make a key, use it, list, revoke, see it refused.
#
#   make run                                     in one terminal
#   examples/curl.sh                             in another one; BASE=… for a server elsewhere
set -euo pipefail

BASE=${BASE:-http://127.0.0.1:8000}
EMAIL=${EMAIL:-ada.$(date +%s)@example.com}
PASSWORD=${PASSWORD:-violet tractor sings at noon}

# One string member of a JSON answer.
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

# Calls the example endpoint, prints the status, and ends the script unless it is the expected one.
expect() {
  local status
  status=$(curl -sS -o /dev/null -w '%{http_code}' "${@:2}" "$BASE/api/protected-endpoint")
  echo "$status"
  test "$status" = "$1"
}

echo '# Sign up. No mail server is set, so the mail with the link is shown at /dev/outbox.'
curl -fsS "$BASE/api/auth/sign-up/email" -H 'Content-Type: application/json' \
  -d "{\"name\":\"Ada\",\"email\":\"$EMAIL\",\"password\":\"$PASSWORD\"}"
echo
LINKS=$(curl -fsS "$BASE/dev/outbox" | grep -o 'http[^"<> ]*verify-email?token=[A-Za-z0-9]*')
curl -fsS "${LINKS%%$'\n'*}" # the newest mail comes first
echo

echo '# Log in.'
TOKEN=$(curl -fsS "$BASE/api/auth/login" -H 'Content-Type: application/json' \
  -d "{\"email\":\"$EMAIL\",\"password\":\"$PASSWORD\"}" | field token)

echo '# Make a key for 30 days. This answer is the only one that has it.'
MADE=$(curl -fsS "$BASE/api/auth/api-key/create" -H "Authorization: Bearer $TOKEN" \
  -H 'Content-Type: application/json' -d '{"name":"curl tour","expiresIn":2592000}')
KEY=$(field key <<<"$MADE")
ID=$(field id <<<"$MADE")
echo "made $(field start <<<"$MADE")…"

echo '# Use it: both headers mean the same. Without a credential: 401.'
expect 200 -H "Authorization: Bearer $KEY"
expect 200 -H "X-API-Key: $KEY"
expect 401

echo '# Who am I?'
curl -fsS -H "Authorization: Bearer $KEY" "$BASE/api/user/profile"
echo

echo '# List the keys: when and from where each was used last.'
curl -fsS -H "Authorization: Bearer $TOKEN" "$BASE/api/auth/api-key/list"
echo

echo '# Revoke it. When this has answered, the key opens nothing.'
curl -fsS -X DELETE -H "Authorization: Bearer $TOKEN" "$BASE/api/auth/api-key/revoke?keyId=$ID"
echo
expect 401 -H "Authorization: Bearer $KEY"
