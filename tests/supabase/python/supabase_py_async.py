"""The asynchronous client of supabase-py: refreshes in parallel, and realtime, which only it has."""

import asyncio

from rig import GATEWAY, KEY, PASSWORD, URL, ask, count, email, equal, main, scenario, seen
from realtime import RealtimeSubscribeStates
from supabase import AsyncClient, AsyncClientOptions, create_async_client


async def signed_up(name: str):
    supabase = await create_async_client(URL, KEY, AsyncClientOptions(auto_refresh_token=False))
    answer = await supabase.auth.sign_up({"email": email(name), "password": PASSWORD})
    await supabase.realtime.set_auth(answer.session.access_token)
    return supabase, answer.user, answer.session


async def until(condition, what: str, seconds: float = 5):
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds:g} s")


@scenario("async: 20 parallel refreshes and calls")
async def _():
    supabase, user, session = await signed_up("ada")
    before = count("POST auth/token?grant_type=refresh_token")
    answers = await asyncio.gather(*(supabase.auth.refresh_session(session.refresh_token) for _ in range(20)))
    equal(len({answer.session.refresh_token for answer in answers}), 1, "refresh tokens")
    equal(count("POST auth/token?grant_type=refresh_token"), before + 20, "nothing was tried twice")
    rows = await asyncio.gather(*(supabase.table("notes").insert({"n": n}).execute() for n in range(20)))
    equal({row.data[0]["user_id"] for row in rows}, {user.id})


async def join(supabase: AsyncClient, heard: list | None = None, private: bool = True):
    states = []
    channel = supabase.channel("room", {"config": {"private": private, "broadcast": {"ack": False, "self": False}, "presence": {"key": "", "enabled": False}}})
    if heard is not None:
        channel.on_broadcast("shout", heard.append)
    await channel.subscribe(lambda state, error: states.append((state, error)))
    return channel, states[0][0]


@scenario("async: realtime: join, broadcast, heartbeat, token")
async def _():
    ada, ada_user, ada_session = await signed_up("ada")
    bob, bob_user, _ = await signed_up("bob")
    heard: list = []
    _, state = await join(bob, heard)
    equal(state, RealtimeSubscribeStates.SUBSCRIBED)
    channel, _ = await join(ada)
    await channel.send_broadcast("shout", {"text": "Zoë 名"})
    await until(lambda: heard, "the broadcast")
    equal(heard[0]["payload"], {"text": "Zoë 名"})
    sockets = ask("GET", "/realtime")
    equal({socket["topics"]["realtime:room"]["sub"] for socket in sockets}, {ada_user.id, bob_user.id}, "joined as")
    equal({socket["vsn"] for socket in sockets}, {"1.0.0"})
    await until(lambda: all(socket["heartbeats"] for socket in ask("GET", "/realtime")), "heartbeats")
    await asyncio.sleep(1.1)  # an HS256 token of the same second is the same token
    fresh = await ada.auth.refresh_session()
    assert fresh.session.access_token != ada_session.access_token
    await ada.realtime.set_auth(fresh.session.access_token)
    await until(lambda: any(s["topics"]["realtime:room"]["updates"] for s in ask("GET", "/realtime")), "the new token")
    await channel.http_send("shout", {"text": "by HTTP"})
    await until(lambda: len(heard) == 2, "the broadcast over HTTP")
    arrived = [request for request in seen(service="realtime", path="/websocket") if request["status"] == 101]
    equal(len(arrived), 2, "sockets")
    if GATEWAY:
        for request in arrived:
            names = [name.lower() for name, _ in request["headers"]]
            assert not [name for name in names if name.startswith("x-auth-")], names
    nobody = await create_async_client(URL, KEY, AsyncClientOptions(auto_refresh_token=False))
    _, state = await join(nobody)
    equal(state, RealtimeSubscribeStates.CHANNEL_ERROR, "a private channel for the anonymous")
    for who in (ada, bob, nobody):
        await who.remove_all_channels()


main()
