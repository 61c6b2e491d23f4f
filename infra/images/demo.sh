#!/usr/bin/env bash
# Plays the demo on containers of its own, which it removes again with their data: `demo.sh RAT`, the command `rat`.
set -euo pipefail

rat=$(realpath "$1")
cd "$(dirname "$0")/../.."
compose=(docker compose)
if command -v docker-compose > /dev/null; then compose=(docker-compose); fi
# Beside a platform that runs here: under a name of its own, on a free port.
compose+=(--project-name rat-demo)
export RAT_PUBLISH=127.0.0.1:0

end() {
  code=$?
  trap '' INT TERM
  if [ $code -ne 0 ]; then "${compose[@]}" logs --tail 50; fi
  "${compose[@]}" down --volumes
  exit $code
}
trap end EXIT
# Whoever stops it half way finds nothing left of it either.
trap 'exit 130' INT
trap 'exit 143' TERM

"${compose[@]}" up --detach --scale runner="${RUNNERS:-4}"
for ((second = 0; second < 120; second++)); do
  if "${compose[@]}" exec -T gateway answers 8080 /health/ready; then break; fi
  sleep 1
done
RAT_TOKEN=$("${compose[@]}" run --rm --no-deps -T --entrypoint cat token /access/token)
export RAT_TOKEN
"$rat" demo --url "http://$("${compose[@]}" port gateway 8080)"
