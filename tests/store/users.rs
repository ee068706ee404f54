//! Users.

use portcullis::clock::Timestamp;
use portcullis::identity::account::AccountName;
use portcullis::secret::Secret;
use portcullis::store::{Added, Session, TokenHash, User};

use super::{NOW, Place, Row, at_once, rows};

pub const ROWS: &[Row] = rows![
    a_user_comes_back_as_given,
    nobody_is_found_in_an_empty_store,
    all_are_added_or_none,
    those_whose_names_are_taken_are_told_by_their_positions,
    among_many_the_taken_ones_are_told_by_their_positions,
    a_name_is_the_same_however_it_is_typed,
    an_id_is_never_given_twice,
    of_many_who_add_one_name_at_once_one_does,
    update_replaces_everything_but_id_and_creation,
    update_of_nobody_changes_nothing,
    update_to_a_taken_name_changes_nothing,
    a_new_name_frees_the_old_one,
    a_hash_is_replaced_only_where_it_is_still_the_old_one,
    of_many_who_replace_one_hash_at_once_one_does,
    a_hash_that_was_taken_away_does_not_come_back,
    removing_takes_the_sessions_along,
    a_removed_name_is_free_again,
    the_list_is_sorted_by_the_bytes_of_the_names,
    the_list_comes_in_pages_without_gaps_or_repetitions,
    hash_kinds_are_counted_by_algorithm_and_cost,
    what_one_gateway_adds_another_finds,
];

const ARGON: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g";

fn account(name: &str) -> AccountName {
    AccountName::parse(name).unwrap()
}

fn user(name: &str) -> User {
    User {
        id: format!("id of {name}"),
        name: name.to_owned(),
        account: account(name),
        email: None,
        hash: Some(Secret::new(ARGON.to_owned())),
        roles: Vec::new(),
        scopes: Vec::new(),
        tenant: None,
        disabled: false,
        created: NOW,
        updated: NOW,
    }
}

/// A user as a text: secrets are not compared otherwise.
fn text(user: &User) -> String {
    let User { id, name, account, email, hash, roles, scopes, tenant, disabled, created, updated } = user;
    let hash = hash.as_ref().map(|hash| hash.expose());
    format!("{:?}", (id, name, account, email, hash, roles, scopes, tenant, disabled, created, updated))
}

async fn a_user_comes_back_as_given(place: Place) {
    let users = place.users().await;
    let full = User {
        name: "Zoë O'Brien; DROP TABLE \"users\" --".to_owned(),
        account: account("zoe"),
        email: Some("zoë@example.com".to_owned()),
        roles: vec!["editor".to_owned(), "a,b".to_owned(), "c\"d\\".to_owned()],
        scopes: vec!["items:read".to_owned(), "\u{1F980}".to_owned()],
        tenant: Some(String::new()),
        disabled: true,
        updated: Timestamp::from_millis(NOW.as_millis() + 1),
        ..user("zoe")
    };
    let empty = User { hash: None, ..user("empty") };
    assert_eq!(users.add(&[full.clone(), empty.clone()]).await, Ok(Added::All));
    for given in [&full, &empty] {
        assert_eq!(text(&users.by_account(&given.account).await.unwrap().unwrap()), text(given));
        assert_eq!(text(&users.by_id(&given.id).await.unwrap().unwrap()), text(given));
    }
}

async fn nobody_is_found_in_an_empty_store(place: Place) {
    let users = place.users().await;
    assert!(users.by_account(&account("ann")).await.unwrap().is_none());
    assert!(users.by_id("").await.unwrap().is_none());
    assert!(users.list(None, 10).await.unwrap().is_empty());
    assert!(users.hash_kinds().await.unwrap().is_empty());
    assert_eq!(users.remove("id").await, Ok(false));
    assert_eq!(users.add(&[]).await, Ok(Added::All));
}

async fn all_are_added_or_none(place: Place) {
    let users = place.users().await;
    assert_eq!(users.add(&[user("ann"), user("bob")]).await, Ok(Added::All));
    assert_eq!(users.add(&[user("carl"), user("bob"), user("dora")]).await, Ok(Added::Taken(vec![1])));
    assert_eq!(users.list(None, 10).await.unwrap().len(), 2);
    assert_eq!(users.add(&[user("carl"), user("dora")]).await, Ok(Added::All));
}

async fn those_whose_names_are_taken_are_told_by_their_positions(place: Place) {
    let users = place.users().await;
    users.add(&[user("ann"), user("bob")]).await.unwrap();
    let again = |name: &str| User { id: format!("another {name}"), ..user(name) };
    // The third is taken by the second.
    let given = [again("bob"), again("carl"), User { id: "third".to_owned(), ..user("Carl") }, again("ann")];
    assert_eq!(users.add(&given).await, Ok(Added::Taken(vec![0, 2, 3])));
    assert!(users.by_account(&account("carl")).await.unwrap().is_none());
}

async fn among_many_the_taken_ones_are_told_by_their_positions(place: Place) {
    let users = place.users().await;
    let name = |number: usize| format!("user {number}");
    users.add(&[user(&name(3)), user(&name(777))]).await.unwrap();
    let mut many: Vec<User> = (0..1000).map(|number| user(&name(number))).collect();
    many[999] = User { id: "twice".to_owned(), ..user(&name(5)) };
    assert_eq!(users.add(&many).await, Ok(Added::Taken(vec![3, 777, 999])));
    assert_eq!(users.list(None, 5000).await.unwrap().len(), 2);
    let rest: Vec<User> =
        many.into_iter().enumerate().filter(|(at, _)| ![3, 777, 999].contains(at)).map(|(_, user)| user).collect();
    assert_eq!(users.add(&rest).await, Ok(Added::All));
    assert_eq!(users.list(None, 5000).await.unwrap().len(), 999);
}

async fn a_name_is_the_same_however_it_is_typed(place: Place) {
    let users = place.users().await;
    users.add(&[user("\u{c5}sa@Example.COM")]).await.unwrap();
    for typed in
        ["a\u{30a}sa@example.com", " \u{c5}SA@EXAMPLE.COM ", "\u{e5}\u{ff53}a@example.com", "\u{212b}sa@example.com"]
    {
        assert!(users.by_account(&account(typed)).await.unwrap().is_some(), "{typed}");
        let another = User { id: "another".to_owned(), ..user(typed) };
        assert_eq!(users.add(&[another]).await, Ok(Added::Taken(vec![0])), "{typed}");
    }
    assert_eq!(users.add(&[user("asa@example.com")]).await, Ok(Added::All), "another letter is another name");
}

async fn an_id_is_never_given_twice(place: Place) {
    let users = place.users().await;
    users.add(&[user("ann")]).await.unwrap();
    let same = User { id: user("ann").id, ..user("bob") };
    assert_eq!(users.add(std::slice::from_ref(&same)).await, Ok(Added::Taken(vec![0])));
    let (carl, dora) = (user("carl"), User { id: user("carl").id, ..user("dora") });
    assert_eq!(users.add(&[carl, dora]).await, Ok(Added::Taken(vec![1])));
    assert_eq!(users.list(None, 10).await.unwrap().len(), 1);
}

async fn of_many_who_add_one_name_at_once_one_does(place: Place) {
    let gateways = [place.users().await, place.users().await];
    let done = at_once(20, |number| {
        let users = gateways[number as usize % 2].clone();
        async move { users.add(&[User { id: format!("id {number}"), ..user("ann") }]).await.unwrap() }
    })
    .await;
    assert_eq!(done.iter().filter(|added| **added == Added::All).count(), 1, "{done:?}");
    assert_eq!(gateways[0].list(None, 10).await.unwrap().len(), 1);
}

async fn update_replaces_everything_but_id_and_creation(place: Place) {
    let users = place.users().await;
    users.add(&[user("ann")]).await.unwrap();
    let later = Timestamp::from_seconds(1_900_000_000);
    let new = User {
        id: user("ann").id,
        email: Some("e".to_owned()),
        hash: None,
        roles: vec!["admin".to_owned()],
        scopes: vec!["me".to_owned()],
        tenant: Some("t".to_owned()),
        disabled: true,
        created: later,
        updated: later,
        ..user("Beth")
    };
    assert_eq!(users.update(&new).await, Ok(true));
    let stored = users.by_account(&account("beth")).await.unwrap().unwrap();
    assert_eq!(text(&stored), text(&User { created: NOW, ..new }));
}

async fn update_of_nobody_changes_nothing(place: Place) {
    let users = place.users().await;
    assert_eq!(users.update(&user("ann")).await, Ok(false));
    assert!(users.list(None, 10).await.unwrap().is_empty());
}

async fn update_to_a_taken_name_changes_nothing(place: Place) {
    let users = place.users().await;
    users.add(&[user("ann"), user("bob")]).await.unwrap();
    let renamed = User { id: user("ann").id, disabled: true, ..user("bob") };
    assert_eq!(users.update(&renamed).await, Ok(false));
    for name in ["ann", "bob"] {
        let stored = users.by_account(&account(name)).await.unwrap().unwrap();
        assert_eq!(text(&stored), text(&user(name)));
    }
}

async fn a_new_name_frees_the_old_one(place: Place) {
    let users = place.users().await;
    users.add(&[user("ann")]).await.unwrap();
    assert_eq!(users.update(&User { id: user("ann").id, ..user("beth") }).await, Ok(true));
    assert!(users.by_account(&account("ann")).await.unwrap().is_none());
    assert_eq!(users.add(&[User { id: "new".to_owned(), ..user("ann") }]).await, Ok(Added::All));
    assert_eq!(users.by_account(&account("beth")).await.unwrap().unwrap().id, user("ann").id);
}

async fn a_hash_is_replaced_only_where_it_is_still_the_old_one(place: Place) {
    let users = place.users().await;
    users.add(&[user("ann"), User { hash: None, ..user("bob") }]).await.unwrap();
    let (id, later) = (user("ann").id, Timestamp::from_seconds(1_900_000_000));
    assert_eq!(users.replace_hash(&id, "something else", "$2b$12$new", later).await, Ok(false));
    assert_eq!(users.replace_hash(&user("bob").id, "", "$2b$12$new", later).await, Ok(false));
    assert_eq!(users.replace_hash("nobody", ARGON, "$2b$12$new", later).await, Ok(false));
    assert_eq!(text(&users.by_id(&id).await.unwrap().unwrap()), text(&user("ann")));
    assert_eq!(users.replace_hash(&id, ARGON, "$2b$12$new", later).await, Ok(true));
    let new = User { hash: Some(Secret::new("$2b$12$new".to_owned())), updated: later, ..user("ann") };
    assert_eq!(text(&users.by_id(&id).await.unwrap().unwrap()), text(&new));
    assert_eq!(users.replace_hash(&id, ARGON, "$2b$12$newer", later).await, Ok(false), "an upgrade undoes no password");
}

async fn of_many_who_replace_one_hash_at_once_one_does(place: Place) {
    let gateways = [place.users().await, place.users().await];
    gateways[0].add(&[user("ann")]).await.unwrap();
    let done = at_once(20, |number| {
        let users = gateways[number as usize % 2].clone();
        async move { users.replace_hash(&user("ann").id, ARGON, &format!("new {number}"), NOW).await.unwrap() }
    })
    .await;
    let winner = done.iter().position(|replaced| *replaced).unwrap();
    assert_eq!(done.iter().filter(|replaced| **replaced).count(), 1);
    let stored = gateways[1].by_id(&user("ann").id).await.unwrap().unwrap();
    assert_eq!(*stored.hash.unwrap().expose(), format!("new {winner}"));
}

async fn a_hash_that_was_taken_away_does_not_come_back(place: Place) {
    let users = place.users().await;
    users.add(&[user("ann")]).await.unwrap();
    users.update(&User { hash: None, ..user("ann") }).await.unwrap();
    assert_eq!(users.replace_hash(&user("ann").id, ARGON, "new", NOW).await, Ok(false));
    assert!(users.by_id(&user("ann").id).await.unwrap().unwrap().hash.is_none());
}

async fn removing_takes_the_sessions_along(place: Place) {
    let (users, sessions) = (place.users().await, place.sessions().await);
    users.add(&[user("ann"), user("bob")]).await.unwrap();
    for (number, owner) in [(1, "ann"), (2, "ann"), (3, "bob")] {
        let session = Session { user: user(owner).id, ..super::sessions::session(&format!("session {number}")) };
        sessions.start(&session, &TokenHash([number; 32])).await.unwrap();
    }
    assert_eq!(users.remove(&user("ann").id).await, Ok(true));
    assert_eq!(users.remove(&user("ann").id).await, Ok(false));
    assert!(users.by_account(&account("ann")).await.unwrap().is_none());
    for (number, left) in [(1, false), (2, false), (3, true)] {
        assert_eq!(sessions.get(&format!("session {number}")).await.unwrap().is_some(), left);
        assert_eq!(sessions.of_token(&TokenHash([number; 32])).await.unwrap().is_some(), left);
    }
}

async fn a_removed_name_is_free_again(place: Place) {
    let users = place.users().await;
    users.add(&[user("ann")]).await.unwrap();
    users.remove(&user("ann").id).await.unwrap();
    assert_eq!(users.add(&[User { id: "new".to_owned(), ..user("ann") }]).await, Ok(Added::All));
}

async fn the_list_is_sorted_by_the_bytes_of_the_names(place: Place) {
    let users = place.users().await;
    let sorted = ["a b", "a-b", "a.b", "a_b", "aa", "ab", "b", "z", "\u{e5}", "\u{44f}", "\u{5b57}", "\u{1d7d8}"];
    let mut given: Vec<User> = sorted.iter().map(|name| user(name)).collect();
    given.reverse();
    users.add(&given).await.unwrap();
    let listed = users.list(None, 100).await.unwrap();
    let names: Vec<&str> = listed.iter().map(|user| user.account.as_str()).collect();
    let mut expected = names.clone();
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(names.len(), sorted.len());
}

async fn the_list_comes_in_pages_without_gaps_or_repetitions(place: Place) {
    let users = place.users().await;
    users.add(&(0..25).map(|number| user(&format!("user {number:02}"))).collect::<Vec<_>>()).await.unwrap();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = users.list(after.as_ref(), 10).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.account.clone());
        seen.push(page.len());
        assert!(page[0].name.ends_with(&format!("{:02}", (seen.len() - 1) * 10)));
    }
    assert_eq!(seen, [10, 10, 5]);
    assert!(users.list(None, 0).await.unwrap().is_empty());
    // What the page before ended with may be gone by now.
    users.remove(&user("user 09").id).await.unwrap();
    let next = users.list(Some(&account("user 09")), 1).await.unwrap();
    assert_eq!(next[0].name, "user 10");
}

async fn hash_kinds_are_counted_by_algorithm_and_cost(place: Place) {
    let users = place.users().await;
    let with = |name: &str, hash: &str| User { hash: Some(Secret::new(hash.to_owned())), ..user(name) };
    let bcrypt = "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW";
    let weak = "$2b$04$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW";
    let given = [user("a"), with("b", bcrypt), with("c", bcrypt), with("d", weak), User { hash: None, ..user("e") }];
    users.add(&given).await.unwrap();
    let kinds = users.hash_kinds().await.unwrap();
    assert_eq!(kinds.iter().map(|(_, users)| *users).collect::<Vec<_>>(), [2, 1, 1], "{kinds:?}");
    assert!(kinds[0].0.starts_with("$2b$12") && !kinds[0].0.contains("EixZ"), "{kinds:?}");
    assert!(kinds[1].0 < kinds[2].0, "the same number: by name");
    users.replace_hash(&user("b").id, bcrypt, ARGON, NOW).await.unwrap();
    users.update(&user("c")).await.unwrap();
    users.remove(&user("d").id).await.unwrap();
    let kinds = users.hash_kinds().await.unwrap();
    assert_eq!(kinds.len(), 1, "{kinds:?}");
    assert!(kinds[0].0.starts_with("$argon2id$v=19$m=19456,t=2,p=1") && kinds[0].1 == 3, "{kinds:?}");
}

async fn what_one_gateway_adds_another_finds(place: Place) {
    let (here, there) = (place.users().await, place.users().await);
    here.add(&[user("ann")]).await.unwrap();
    assert!(there.by_account(&account("ann")).await.unwrap().is_some());
    there.update(&User { disabled: true, ..user("ann") }).await.unwrap();
    assert!(here.by_id(&user("ann").id).await.unwrap().unwrap().disabled);
    drop((here, there));
    assert!(place.users().await.by_account(&account("ann")).await.unwrap().unwrap().disabled);
}
