"""An items API without a line of authentication code.

Portcullis stands in front: a request that arrives here is allowed, and who is asking stands in the X-Auth-*
headers. The gateway removes whatever the client sent under those names, on every route, so they can be believed
as long as this app is reachable through the gateway only: bind it to loopback or to a private network.
"""

from typing import Annotated

from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel

app = FastAPI(title="Items")

UserId = Annotated[str, Header(alias="X-Auth-User")]
Email = Annotated[str | None, Header(alias="X-Auth-Email")]
# Lists arrive comma-joined; a comma inside a member is percent-encoded.
Roles = Annotated[str | None, Header(alias="X-Auth-Roles")]
Scopes = Annotated[str | None, Header(alias="X-Auth-Scopes")]


class NewItem(BaseModel):
    name: str


class Item(NewItem):
    id: int
    owner: str


class User(BaseModel):
    id: str
    name: str


items: dict[int, Item] = {
    1: Item(id=1, name="anvil", owner="u1"),
    2: Item(id=2, name="bellows", owner="u2"),
}
users: dict[str, User] = {
    "u1": User(id="u1", name="Rita Reader"),
    "u2": User(id="u2", name="Will Writer"),
    "u9": User(id="u9", name="Bo Boss"),
}


def split(header: str | None) -> list[str]:
    return header.split(",") if header else []


@app.get("/")
def home() -> dict[str, str]:
    return {"message": "an items API; see /docs"}


@app.get("/users/me")
def me(user: UserId, email: Email = None, roles: Roles = None, scopes: Scopes = None) -> dict:
    return {"id": user, "email": email, "roles": split(roles), "scopes": split(scopes)}


@app.get("/users")
def list_users() -> list[User]:
    return list(users.values())


@app.get("/users/{user_id}")
def read_user(user_id: str) -> User:
    if user_id not in users:
        raise HTTPException(404, "no such user")
    return users[user_id]


@app.get("/items")
def list_items() -> list[Item]:
    return list(items.values())


@app.post("/items", status_code=201)
def create_item(new: NewItem, user: UserId) -> Item:
    item = Item(id=max(items, default=0) + 1, name=new.name, owner=user)
    items[item.id] = item
    return item


@app.get("/items/{item_id}")
def read_item(item_id: int) -> Item:
    if item_id not in items:
        raise HTTPException(404, "no such item")
    return items[item_id]


@app.put("/items/{item_id}")
def rename_item(item_id: int, new: NewItem, user: UserId) -> Item:
    # Whose row it is only the app can know: it compares the owner with the identity that the gateway vouches for.
    item = read_item(item_id)
    if item.owner != user:
        raise HTTPException(403, "not your item")
    item.name = new.name
    return item


@app.delete("/items/{item_id}", status_code=204)
def delete_item(item_id: int) -> None:
    read_item(item_id)
    del items[item_id]
