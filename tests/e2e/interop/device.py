"""A device that nobody here wrote the protocol code of: paho-mqtt and cbor2 against the cloud in a box.

It takes the next job, downloads the job's files through their stream in the given encoding, reports progress and
success, and on the way asks for what must be refused. What it has seen goes to standard output as one JSON object; any
surprise is an exception and so an exit code of 1.
"""

import argparse
import base64
import json
import queue
import ssl

import cbor2
import paho.mqtt.client as mqtt

PATIENCE_S = 20
# The service sends at most 128 KiB a request.
WINDOW_BYTES = 128 * 1024


class Device:
    def __init__(self, options):
        self.thing = options.thing
        self.encoding = options.encoding
        self.messages = queue.Queue()
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=options.thing, protocol=mqtt.MQTTv311
        )
        self.client.on_message = lambda _client, _data, message: self.messages.put(message)
        connected = queue.Queue()
        self.client.on_connect = lambda *arguments: connected.put(arguments[3])
        self.client.on_subscribe = lambda *_: connected.put("subscribed")
        if options.ca:
            self.client.tls_set(
                ca_certs=options.ca,
                certfile=options.certificate,
                keyfile=options.key,
                cert_reqs=ssl.CERT_REQUIRED,
            )
        self.client.connect(options.host, options.port)
        self.client.loop_start()
        reason = connected.get(timeout=PATIENCE_S)
        assert not reason.is_failure, reason
        if options.subscribe:
            # Where a broker does not deliver replies unasked.
            self.client.subscribe(f"$aws/things/{self.thing}/#", qos=1)
            assert connected.get(timeout=PATIENCE_S) == "subscribed"

    def topic(self, rest):
        return f"$aws/things/{self.thing}/{rest}"

    def publish(self, rest, payload, qos):
        self.client.publish(self.topic(rest), payload, qos=qos)

    def message(self):
        """The next message that is no echo of a request of our own."""
        prefix = self.topic("")
        while True:
            message = self.messages.get(timeout=PATIENCE_S)
            assert message.topic.startswith(prefix), message.topic
            rest = message.topic[len(prefix) :]
            last = rest.split("/")[-1]
            if rest.startswith("jobs/notify") or last in ("get", "update", "start-next"):
                continue
            if "/get/" in rest and rest.startswith("streams/") or "/describe/" in rest:
                continue
            return rest, message.payload

    def ask_jobs(self, rest, request):
        """One Jobs request: the verdict and the body."""
        token = f"{len(rest)}-{rest[-20:]}"[:64]
        self.publish(f"jobs/{rest}", json.dumps({**request, "clientToken": token}), 1)
        topic, payload = self.message()
        assert topic.startswith(f"jobs/{rest}/"), topic
        body = json.loads(payload)
        assert body["clientToken"] == token, body
        assert isinstance(body["timestamp"], int), body
        return topic.rsplit("/", 1)[1], body

    def encode(self, value):
        return cbor2.dumps(value) if self.encoding == "cbor" else json.dumps(value)

    def decode(self, payload):
        return cbor2.loads(payload) if self.encoding == "cbor" else json.loads(payload)

    def bitmap(self, blocks):
        """The wanted blocks, lowest bit first."""
        bits = bytearray(max(blocks) // 8 + 1)
        for block in blocks:
            bits[block // 8] |= 1 << (block % 8)
        return bytes(bits) if self.encoding == "cbor" else "0x" + bits.hex()

    def ask_stream(self, stream, verb, request):
        self.publish(f"streams/{stream}/{verb}/{self.encoding}", self.encode(request), 0)

    def stream_reply(self, stream, kind):
        topic, payload = self.message()
        assert topic == f"streams/{stream}/{kind}/{self.encoding}", topic
        return self.decode(payload)

    def refused(self, stream, request):
        """Code of a refused request, which stands under the long name and the short one."""
        self.ask_stream(stream, "get", {**request, "c": "no"})
        body = self.stream_reply(stream, "rejected")
        assert body["o"] == body["code"] and body["m"] == body["message"], body
        # What cannot be read has no token to give back.
        assert body.get("c", "no") == "no", body
        return body["o"]

    def fetch(self, stream, file_id, size, block_size):
        """A whole file, by bitmaps of what is missing, as much at a time as the service sends."""
        count = (size + block_size - 1) // block_size
        missing = set(range(count))
        file = bytearray(size)
        while missing:
            wanted = sorted(missing)[: max(1, WINDOW_BYTES // block_size)]
            first = wanted[0]
            request = {
                "c": "dl",
                "s": 1,
                "f": file_id,
                "l": block_size,
                "o": first,
                "n": len(wanted),
                "b": self.bitmap([block - first for block in wanted]),
            }
            self.ask_stream(stream, "get", request)
            for _ in wanted:
                block = self.stream_reply(stream, "data")
                assert block["c"] == "dl" and block["f"] == file_id, block
                index, payload = block["i"], block["p"]
                if self.encoding == "json":
                    payload = base64.b64decode(payload, validate=True)
                assert len(payload) == block["l"], block["l"]
                missing.remove(index)
                file[index * block_size : index * block_size + len(payload)] = payload
        return bytes(file)


def main():
    parser = argparse.ArgumentParser()
    for name in ("host", "thing", "out"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("ca", "certificate", "key"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--encoding", choices=["cbor", "json"], required=True)
    parser.add_argument("--block-size", type=int, default=4096)
    parser.add_argument("--subscribe", action="store_true")
    options = parser.parse_args()
    device = Device(options)

    verdict, body = device.ask_jobs("$next/get", {})
    assert verdict == "accepted", body
    execution = body["execution"]
    job, version = execution["jobId"], execution["versionNumber"]
    assert execution["status"] == "QUEUED", execution
    update = execution["jobDocument"]["afr_ota"]
    stream = update["streamname"]
    assert "MQTT" in update["protocols"], update

    verdict, body = device.ask_jobs("start-next", {"statusDetails": {"by": "paho"}})
    assert verdict == "accepted" and body["execution"]["status"] == "IN_PROGRESS", body
    version = body["execution"]["versionNumber"]
    verdict, body = device.ask_jobs(
        f"{job}/update", {"status": "IN_PROGRESS", "expectedVersion": version + 7}
    )
    mismatch = (verdict, body["code"])
    verdict, body = device.ask_jobs("none-of-mine/get", {})
    unknown = (verdict, body["code"])

    device.ask_stream(stream, "describe", {"c": "d"})
    described = device.stream_reply(stream, "description")
    assert described["c"] == "d", described
    sizes = {file["f"]: file["z"] for file in described["r"]}

    refusals = {
        "block_size": device.refused(stream, {"f": 0, "l": 131073, "n": 1}),
        "offset": device.refused(stream, {"f": 0, "l": 256, "o": 98305, "n": 1}),
        "file": device.refused(stream, {"f": 99, "l": 256, "n": 1}),
        "version": device.refused(stream, {"f": 0, "l": 256, "n": 1, "s": 9}),
    }
    if options.encoding == "cbor":
        # A bitmap must be a byte string there.
        refusals["bitmap"] = device.refused(stream, {"f": 0, "l": 256, "b": "0x01"})

    fetched = {}
    for file in update["files"]:
        file_id, size = file["fileid"], file["filesize"]
        assert sizes[file_id] == size, described
        content = device.fetch(stream, file_id, size, options.block_size)
        with open(f"{options.out}.{file_id}", "wb") as out:
            out.write(content)
        fetched[file_id] = len(content)
        verdict, body = device.ask_jobs(
            f"{job}/update",
            {
                "status": "IN_PROGRESS",
                "statusDetails": {"receive": f"{size}/{size}"},
                "expectedVersion": version,
                "includeJobExecutionState": True,
            },
        )
        assert verdict == "accepted", body
        version = body["executionState"]["versionNumber"]
    verdict, body = device.ask_jobs(
        f"{job}/update", {"status": "SUCCEEDED", "expectedVersion": version}
    )
    assert verdict == "accepted", body
    verdict, body = device.ask_jobs("$next/get", {})
    assert verdict == "accepted", body
    print(
        json.dumps(
            {
                "job": job,
                "fetched": fetched,
                "refusals": refusals,
                "mismatch": mismatch,
                "unknown": unknown,
                "next": body.get("execution"),
            }
        )
    )
    device.client.disconnect()
    device.client.loop_stop()


main()
