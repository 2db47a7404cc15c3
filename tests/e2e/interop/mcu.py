"""Clients that nobody here wrote against the simulated MCU, with images that imgtool signed.

smpclient lists, uploads, marks for test, resets and confirms, and once more without the confirmation, which has to come
back; mcumgr-toolkit, which tries again where something is lost, does it over lines that lose, and in raw framing. What each
has seen goes to standard output as one JSON object; any surprise is an exception and so an exit code of 1.
"""

import argparse
import asyncio
import hashlib
import json
import pathlib
import subprocess
import sys
import time

from smpclient import SMPClient
from smpclient.generics import error, success
from smpclient.requests.image_management import ImageErase, ImageStatesRead, ImageStatesWrite
from smpclient.requests.os_management import EchoWrite, MCUMgrParametersRead, ResetWrite
from smpclient.transport.serial import SMPSerialTransport

# A swap of the simulated flash takes well below a second.
START_TRIES = 40
START_PAUSE_S = 0.25


def imgtool(*arguments):
    """Runs imgtool of the same Python."""
    program = pathlib.Path(sys.executable).with_name("imgtool")
    subprocess.run([program, *arguments], check=True, stdout=subprocess.PIPE)


def sign(folder, key, version, slot_size):
    """A signed image whose body is of its version's own."""
    body = folder / f"{version}.raw"
    signed = folder / f"{version}.bin"
    body.write_bytes(version.encode() * 3000)
    imgtool(
        "sign", "--key", key, "--version", version, "--align", "8", "--header-size", "0x200",
        "--pad-header", "--slot-size", str(slot_size), body, signed,
    )  # fmt: skip
    return signed


class Session:
    def __init__(self, port):
        self.port = port
        self.client = None

    async def __aenter__(self):
        self.client = SMPClient(SMPSerialTransport(), self.port)
        await self.client.connect()
        return self

    async def __aexit__(self, *_):
        await self.client.disconnect()

    async def ask(self, request):
        reply = await self.client.request(request)
        assert success(reply), reply
        return reply

    async def images(self):
        """Slot, version and flags of what is listed, and the hashes by version."""
        reply = await self.ask(ImageStatesRead())
        flags = ("active", "confirmed", "pending", "permanent")
        listed = [
            [image.slot, image.version, *(flag for flag in flags if getattr(image, flag))]
            for image in reply.images
        ]
        return listed, {image.version: image.hash for image in reply.images}

    async def reset(self):
        await self.ask(ResetWrite())
        # The old server still answers for a moment.
        await asyncio.sleep(0.7)
        for _ in range(START_TRIES):
            try:
                return await self.images()
            except Exception as not_yet:
                last = not_yet
                await asyncio.sleep(START_PAUSE_S)
        raise last

    async def upload(self, path):
        offsets = [offset async for offset in self.client.upload(path.read_bytes())]
        assert offsets[-1] == path.stat().st_size, offsets[-1]
        return len(offsets)


async def update(session, path, version, confirms):
    """One update; the lists on its way."""
    seen = {"pieces": await session.upload(path)}
    seen["uploaded"], hashes = await session.images()
    await session.ask(ImageStatesWrite(hash=hashes[version], confirm=False))
    seen["marked"], _ = await session.images()
    refused = await session.client.request(ImageErase())
    assert error(refused), refused
    seen["erase"] = str(refused.err.rc.value) if hasattr(refused, "err") else str(refused)
    seen["tested"], _ = await session.reset()
    if confirms:
        await session.ask(ImageStatesWrite(confirm=True))
        seen["confirmed"], _ = await session.images()
    seen["last"], _ = await session.reset()
    return seen


async def talk(options):
    async with Session(options.port) as session:
        echo = await session.ask(EchoWrite(d="hello"))
        sizes = await session.ask(MCUMgrParametersRead())
        first, _ = await session.images()
        seen = {"echo": echo.r, "buf_size": sizes.buf_size, "first": first}
        seen["reverted"] = await update(session, options.new, "2.0.0", confirms=False)
        await session.ask(ImageErase())
        seen["committed"] = await update(session, options.new, "2.0.0", confirms=True)
        return seen


def listed(images):
    """Slot, version and flags, as smpclient's are told above."""
    flags = ("active", "confirmed", "pending", "permanent")
    return [[image.slot, image.version, *(flag for flag in flags if getattr(image, flag))] for image in images]


def toolkit(options):
    """One update by mcumgr-toolkit, with what only it asks for."""
    from mcumgr_toolkit import MCUmgrClient

    def returned(client):
        time.sleep(0.7)
        for attempt in range(START_TRIES):
            try:
                return listed(client.image_get_state())
            except Exception:
                if attempt + 1 == START_TRIES:
                    raise
                time.sleep(START_PAUSE_S)

    connect = MCUmgrClient.raw_serial if options.raw else MCUmgrClient.serial
    with connect(options.port, 115200, 1000) as client:
        client.set_retries(5)
        client.use_auto_frame_size()
        seen = {"echo": client.os_echo("hello"), "first": listed(client.image_get_state())}
        sizes = client.os_mcumgr_parameters()
        seen["buf_size"] = sizes.buf_size
        seen["slots"] = [slot.size for image in client.image_slot_info() for slot in image.slots]
        data = options.new.read_bytes()
        client.image_upload(data, checksum=hashlib.sha256(data).digest())
        images = client.image_get_state()
        seen["uploaded"] = listed(images)
        new = next(image.hash for image in images if image.slot == 1)
        seen["marked"] = listed(client.image_set_state(hash=new, confirm=False))
        client.os_system_reset()
        seen["tested"] = returned(client)
        seen["confirmed"] = listed(client.image_set_state(confirm=True))
        client.os_system_reset()
        seen["last"] = returned(client)
        client.image_erase()
        seen["erased"] = listed(client.image_get_state())
        return seen


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(required=True, dest="verb")
    signing = verbs.add_parser("sign")
    signing.add_argument("--folder", type=pathlib.Path, required=True)
    signing.add_argument("--slot-size", type=int, required=True)
    talking = verbs.add_parser("talk")
    talking.add_argument("--port", required=True)
    talking.add_argument("--new", type=pathlib.Path, required=True)
    second = verbs.add_parser("toolkit")
    second.add_argument("--port", required=True)
    second.add_argument("--new", type=pathlib.Path, required=True)
    second.add_argument("--raw", action="store_true")
    options = parser.parse_args()
    if options.verb == "sign":
        key = options.folder / "key.pem"
        imgtool("keygen", "--key", key, "--type", "ecdsa-p256")
        imgtool("getpub", "--key", key, "--encoding", "pem", "--output", options.folder / "public.pem")
        seen = {version: str(sign(options.folder, key, version, options.slot_size)) for version in ("1.0.0", "2.0.0")}
    elif options.verb == "toolkit":
        seen = toolkit(options)
    else:
        seen = asyncio.run(talk(options))
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
