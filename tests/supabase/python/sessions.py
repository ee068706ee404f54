"""Browser sessions of `login: { via: supabase }`, as many tabs of impatient people with a bad network use them: one refresh for
all, and no session lost, whatever the auth server answers and whoever hangs up. Two gateways share the store."""

import asyncio
import os
import random
import re
import signal

import httpx

from rig import PASSWORD, SETTINGS, URL, ask, count, email, equal, fault, main, scenario, seen, settings

GATEWAYS = [URL, SETTINGS["second"]]
REFRESH = {"service": "auth", "path": "/token", "grant_type": "refresh_token"}
COUNTER = "POST auth/token?grant_type=refresh_token"
# A session is refreshed at most once in this time.
SPACING = 5.2


def browser() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=250, max_keepalive_connections=250)
    return httpx.AsyncClient(timeout=20, limits=limits, cookies=None)


async def sign_in(client: httpx.AsyncClient, gateway: str = URL) -> dict:
    """Signs up on the gateway's own page; the header that a browser sends from then on."""
    form = {"username": email("tab"), "password": PASSWORD, "action": "sign_up", "return_to": "/page"}
    answer = await client.post(gateway + "/login", data=form, headers={"Origin": gateway, "Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 303, f"{answer.status_code}: {answer.text[:500]}"
    equal(answer.headers["location"], "/page")
    cookie = next(re.match(r"__Host-session=[^;]+", line) for line in answer.headers.get_list("set-cookie") if line.startswith("__Host-session="))
    client.cookies.clear()  # sent by hand: it is Secure, and this is loopback
    return {"Cookie": cookie[0]}


async def expired(client: httpx.AsyncClient) -> dict:
    """A session whose access token has expired, and which may be refreshed again."""
    settings(jwt_exp=1)
    held = await sign_in(client)
    settings(jwt_exp=3600)
    await asyncio.sleep(SPACING)
    return held


async def page(client: httpx.AsyncClient, held: dict, gateway: str = URL) -> int:
    return (await client.get(gateway + "/page", headers=held)).status_code


@scenario("sessions: 200 parallel pages, one refresh", only="gateway")
async def _():
    async with browser() as client:
        held = await expired(client)
        before = count(COUNTER)
        answers = await asyncio.gather(*(page(client, held) for _ in range(200)))
        equal({status: answers.count(status) for status in set(answers)}, {200: 200})
        equal(count(COUNTER) - before, 1, "refreshes")
        said = seen(service="functions", last=200)
        equal(len({dict(request["headers"])["authorization"] for request in said}), 1, "access tokens that arrived")
        assert not [request for request in said if "cookie" in dict(request["headers"])], "the cookie arrived"


@scenario("sessions: 200 parallel pages at two gateways, one refresh", only="gateway")
async def _():
    async with browser() as client:
        held = await expired(client)
        before = count(COUNTER)
        fault(REFRESH | {"delay_ms": 300})
        answers = await asyncio.gather(*(page(client, held, GATEWAYS[n % 2]) for n in range(200)))
        equal({status: answers.count(status) for status in set(answers)}, {200: 200})
        equal(count(COUNTER) - before, 1, "refreshes")


@scenario("sessions: those who asked hang up, and the refresh goes on", only="gateway")
async def _():
    async with browser() as client:
        held = await expired(client)
        before = count(COUNTER)
        fault(REFRESH | {"delay_ms": 600})
        tasks = [asyncio.create_task(page(client, held)) for _ in range(40)]
        await asyncio.sleep(0.25)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(1)
    async with browser() as client:
        equal(await page(client, held), 200, "the next page")
    equal(count(COUNTER) - before, 1, "refreshes")


@scenario("sessions: nothing that passes ends one", only="gateway")
async def _():
    chance = random.Random(4)
    async with browser() as client:
        settings(jwt_exp=4)  # gone in the next round, and good enough for its own
        people = [await sign_in(client, GATEWAYS[n % 2]) for n in range(4)]
        for faults in (
            [{"status": 503, "times": 3}, {"status": 429, "code": "over_request_rate_limit", "times": 3}],
            [{"status": 409, "code": "conflict", "times": 2}, {"drop": "after", "times": 2}, {"status": 500, "times": 2}],
            [{"drop": "before", "times": 2}, {"drop": "after", "times": 2}, {"delay_ms": 400, "times": 4}],
            [{"status": 502, "body": "<html>", "times": 4}, {"status": 200, "body": "{}", "times": 2}],
        ):
            await asyncio.sleep(SPACING)
            fault({"clear": True}, *(REFRESH | one for one in faults))
            tasks = [asyncio.create_task(page(client, chance.choice(people), chance.choice(GATEWAYS))) for _ in range(60)]
            await asyncio.sleep(chance.uniform(0.05, 0.4))
            for task in chance.sample(tasks, 25):
                task.cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            statuses = {answer for answer in answers if isinstance(answer, int)}
            assert statuses <= {200, 503}, f"{faults}: {statuses}"
        fault({"clear": True})
        settings(jwt_exp=3600)
        for held in people:
            for _ in range(40):
                status = await page(client, held)
                if status == 200:
                    break
                equal(status, 503, "until it is 200")
                await asyncio.sleep(0.5)
            equal(status, 200, "the session is alive")
        for session in ask("GET", "/sessions"):
            assert not session["revoked"], "reuse was detected: a token was lost"


@scenario("sessions: what Supabase ended is ended here", only="gateway")
async def _():
    async with browser() as client:
        held = await expired(client)
        for session in ask("GET", "/sessions"):
            ask("POST", f"/sessions/{session['id']}/end", {})
        equal(await page(client, held), 401)
        answer = await client.get(URL + "/page", headers=held | {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"})
        assert answer.status_code in (302, 303) and answer.headers["location"].startswith("/login?"), f"{answer.status_code} {answer.headers}"


@scenario("sessions: a gateway that is killed while it refreshes loses none", only="gateway" if SETTINGS["key"] == SETTINGS["publishable_key"] else "once")
async def _():
    async with browser() as client:
        held = await expired(client)
        fault(REFRESH | {"delay_ms": 700, "times": 1})
        task = asyncio.create_task(page(client, held, GATEWAYS[1]))
        await asyncio.sleep(0.35)
        os.kill(SETTINGS["second_pid"], signal.SIGKILL)
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.7)  # the answer went to nobody, and the token is used
        equal(count(COUNTER), 1, "refreshes that began")
        statuses = []
        while not statuses or (statuses[-1] == 503 and len(statuses) < 60):
            statuses.append(await page(client, held))
            await asyncio.sleep(0.5)
        equal(statuses[-1], 200, f"the session is alive: {statuses}")
        equal(count(COUNTER), 2, "refreshes")


main()
