"""Another agency reads along: prints the life of each case from the public feed. Ctrl-C stops."""

import asyncio
import json
import os
from contextlib import suppress

from aiokafka import AIOKafkaConsumer

SERVERS = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")
TOPIC = os.environ.get("JANGKAU_TOPIC_PREFIX", "") + "public.cases"


async def main() -> None:
    seen: set[str] = set()  # ids: the same event can come twice
    versions: dict[str, int] = {}  # the last version of each case
    # Without a group nothing is committed: every start reads from the beginning.
    feed = AIOKafkaConsumer(TOPIC, bootstrap_servers=SERVERS, auto_offset_reset="earliest")
    async with feed:
        async for record in feed:
            event = json.loads(record.value)
            if event["id"] in seen:
                continue
            seen.add(event["id"])
            case, data = event["subject"], event["data"]
            expected = versions.get(case, 0) + 1
            versions[case] = max(data["version"], versions.get(case, 0))
            gap = f"  GAP: expected version {expected}" if data["version"] != expected else ""
            words = [data.get(key) for key in ("waiting_for", "escalated_for", "outcome")]
            why = f" ({', '.join(filter(None, words))})" if any(words) else ""
            drill = "DRILL " if event.get("drill") else ""
            what = f"{drill}{data['urgency']} {data['category']} in {data['subdistrict']['name']}"
            state = f"version {data['version']}: {data['state']}{why}"
            print(f"{event['time'][:19]}  case {case}  {what}  {state}{gap}", flush=True)


with suppress(KeyboardInterrupt):
    asyncio.run(main())
