use super::*;

/// 77 bytes: bcrypt sees 72 of them.
const LONG: &str = "pässwörd \u{1f511} – long enough to be longer than seventy-two bytes, for bcrypt!";

/// Format, password, stored hash. All with low costs, but for those that stand in a tutorial.
/// Format, password, stored hash.
fn foreign() -> Vec<(&'static str, &'static str, &'static str)> {
    let rows = include_str!("foreign.txt").lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| match row.split(" | ").collect::<Vec<_>>()[..] {
        [format, "LONG", stored] => (format, LONG, stored),
        [format, password, stored] => (format, password, stored),
        _ => panic!("{row}"),
    })
    .collect()
}

#[test]
fn hashes_of_other_libraries_verify_and_are_outdated() {
    for (format, password, stored) in foreign() {
        let hash = PasswordHash::parse(stored).unwrap_or_else(|error| panic!("{stored}: {error}"));
        assert_eq!(hash.format(), format, "{stored}");
        assert_eq!(hash.verify(password.as_bytes()), Ok(Verdict::MatchOutdated), "{stored}");
        assert_eq!(hash.verify(b"Secret"), Ok(Verdict::NoMatch), "{stored}");
    }
}

#[test]
fn a_new_hash_verifies_and_is_up_to_date() {
    let stored = hash(LONG.as_bytes(), *b"0123456789abcdef").unwrap();
    assert!(stored.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$"));
    let hash = PasswordHash::parse(stored.expose()).unwrap();
    assert_eq!(hash.verify(LONG.as_bytes()), Ok(Verdict::Match));
    assert_eq!(hash.verify(LONG.trim_end_matches('!').as_bytes()), Ok(Verdict::NoMatch));
    assert_eq!(format!("{hash:?}"), "PasswordHash { format: \"argon2id\", .. }");
    for outdated in ["m=19457,t=2,p=1", "m=19456,t=3,p=1", "m=19456,t=2,p=2"] {
        let stored = stored.expose().replace("m=19456,t=2,p=1", outdated);
        assert!(PasswordHash::parse(&stored).unwrap().is_outdated(), "{outdated}");
    }
    let django = format!("argon2{}", stored.expose());
    assert_eq!(PasswordHash::parse(&django).unwrap().verify(LONG.as_bytes()), Ok(Verdict::MatchOutdated));
}

/// J05, J06
#[test]
fn a_password_counts_as_it_was_received() {
    let stored = |password: &[u8]| hash(password, [7; 16]);
    for (length, fine) in [(0, false), (1, true), (64, true), (1024, true), (1025, false), (1 << 20, false)] {
        assert_eq!(stored(&vec![b'x'; length]).is_ok(), fine, "{length}");
    }
    let hash = PasswordHash::parse(stored("Zo\u{eb} 1\0x".as_bytes()).unwrap().expose()).unwrap();
    for (password, expected) in [
        ("Zo\u{eb} 1\0x", Verdict::Match),
        ("Zoe\u{308} 1\0x", Verdict::NoMatch),
        ("zo\u{eb} 1\0x", Verdict::NoMatch),
        ("Zo\u{eb} 1", Verdict::NoMatch),
        ("Zo\u{eb} 1\0x ", Verdict::NoMatch),
        ("", Verdict::NoMatch),
    ] {
        assert_eq!(hash.verify(password.as_bytes()), Ok(expected), "{password:?}");
    }
    // Only bcrypt itself ends after 72 bytes, and it does not end at a zero.
    let verify = |stored: &str, password: &[u8]| PasswordHash::parse(stored).unwrap().verify(password).unwrap();
    let (bcrypt, sha256) = (foreign()[8].2, foreign()[10].2);
    assert_eq!(verify(bcrypt, &LONG.as_bytes()[..72]), Verdict::MatchOutdated);
    assert_eq!(verify(bcrypt, &LONG.as_bytes()[..71]), Verdict::NoMatch);
    assert_eq!(verify(sha256, &LONG.as_bytes()[..72]), Verdict::NoMatch);
    assert_eq!(verify(foreign()[3].2, b"secret\0tail"), Verdict::NoMatch);
}

const SALT: &str = "c2Vhc2FsdHNlYXNhbHQ";
const HASH: &str = "o0RHcmeGf17qfIWcOw6MaPhhZgOwdMO1Yez+uJQbBwQ";

/// J05, J07
#[test]
fn a_hash_that_is_hostile_or_broken_is_refused_when_it_is_read() {
    let argon2 = |costs: &str| format!("$argon2id$v=19${costs}${SALT}${HASH}");
    let too_costly = |format, part| HashError::TooCostly { format, part };
    let invalid = |format, part| HashError::Invalid { format, part };
    let firebase = |costs: &str| format!("$fbscrypt${costs},ss=Bw==,sk={HASH}=$C0sHCg9ek77hsg==${HASH}=");
    assert!(PasswordHash::parse(&firebase("v=1,n=14,r=8,p=1")).is_ok());
    for (stored, expected) in [
        (argon2("m=4294967297,t=2,p=1"), too_costly("argon2id", "m")),
        (argon2("m=4194304,t=1000,p=1"), too_costly("argon2id", "m")),
        (argon2("m=262145,t=2,p=1"), too_costly("argon2id", "m")),
        (argon2("m=65536,t=4294967297,p=1"), too_costly("argon2id", "t")),
        (argon2("m=65536,t=21,p=1"), too_costly("argon2id", "t")),
        (argon2("m=65536,t=2,p=256"), too_costly("argon2id", "p")),
        (argon2("m=65536,t=2,p=0"), invalid("argon2id", "p")),
        (argon2("m=65536,t=0,p=1"), invalid("argon2id", "t")),
        (argon2("m=7,t=2,p=1"), invalid("argon2id", "m")),
        (argon2("m=065536,t=2,p=1"), invalid("argon2id", "m")),
        (argon2("m=+65536,t=2,p=1"), invalid("argon2id", "m")),
        (argon2("m=-1,t=2,p=1"), invalid("argon2id", "m")),
        (argon2("t=2,m=65536,p=1"), invalid("argon2id", "m")),
        (argon2("m=65536,t=2"), invalid("argon2id", "number of parts")),
        (argon2("m=65536,t=2,p=1,data=abc"), invalid("argon2id", "number of parts")),
        (argon2("m=65536,t=2,p=1,keyid=abc"), invalid("argon2id", "number of parts")),
        (argon2("").replace("v=19$", ""), invalid("argon2id", "number of parts")),
        (argon2("m=64,t=2,p=1").replace("19", "16"), invalid("argon2id", "version")),
        (argon2("m=64,t=2,p=1").replace(SALT, ""), invalid("argon2id", "salt")),
        (argon2("m=64,t=2,p=1").replace(SALT, "c2Vh"), invalid("argon2id", "salt")),
        (argon2("m=64,t=2,p=1").replace(SALT, "c2Vhc2F%"), invalid("argon2id", "salt")),
        (argon2("m=64,t=2,p=1").replace(HASH, ""), invalid("argon2id", "hash")),
        (argon2("m=64,t=2,p=1").replace(HASH, "AAAA"), invalid("argon2id", "hash")),
        (argon2("m=64,t=2,p=1").replace(HASH, &"AAAA".repeat(22)), invalid("argon2id", "hash")),
        (argon2("m=64,t=2,p=1") + "$x", invalid("argon2id", "number of parts")),
        ("$2b$16$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW".into(), too_costly("bcrypt", "cost")),
        ("$2b$99$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW".into(), too_costly("bcrypt", "cost")),
        ("$2b$03$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW".into(), invalid("bcrypt", "cost")),
        ("$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31l".into(), invalid("bcrypt", "hash")),
        ("$2b$12$".into(), invalid("bcrypt", "salt")),
        ("$2b$12$é".into(), invalid("bcrypt", "salt")),
        (
            "pbkdf2_sha256$5000001$s$+hs9qSCcGyNSGDNojIEbomuX9WI/mzTF5yfwAXqyKOo=".into(),
            too_costly("django pbkdf2_sha256", "rounds"),
        ),
        (
            "pbkdf2_sha256$0$s$+hs9qSCcGyNSGDNojIEbomuX9WI/mzTF5yfwAXqyKOo=".into(),
            invalid("django pbkdf2_sha256", "rounds"),
        ),
        (
            "pbkdf2_sha256$10$$+hs9qSCcGyNSGDNojIEbomuX9WI/mzTF5yfwAXqyKOo=".into(),
            invalid("django pbkdf2_sha256", "salt"),
        ),
        ("pbkdf2_sha256$10$s$+hs9qSCcGyNSGDNojIEbog==".into(), invalid("django pbkdf2_sha256", "hash")),
        ("pbkdf2:md5:1000$s$00000000000000000000000000000000".into(), invalid("werkzeug pbkdf2", "hash function")),
        ("pbkdf2:sha256$s$00000000000000000000000000000000".into(), invalid("werkzeug pbkdf2", "number of parts")),
        (format!("pbkdf2:sha256:1${}$", "s".repeat(65)), invalid("werkzeug pbkdf2", "salt")),
        ("pbkdf2:sha256:1$s$0".into(), invalid("werkzeug pbkdf2", "hash")),
        ("scrypt:1048576:8:1$s$00000000000000000000000000000000".into(), too_costly("werkzeug scrypt", "n")),
        ("scrypt:262144:8:16$s$00000000000000000000000000000000".into(), too_costly("werkzeug scrypt", "n")),
        ("scrypt:1000:8:1$s$00000000000000000000000000000000".into(), invalid("werkzeug scrypt", "n")),
        ("scrypt:0:8:1$s$00000000000000000000000000000000".into(), invalid("werkzeug scrypt", "n")),
        ("$scrypt$ln=32,r=8,p=1$c2Vh$c2Vh".into(), too_costly("passlib scrypt", "ln")),
        ("$scrypt$ln=10,r=18446744073709551617,p=1$c2Vh$c2Vh".into(), too_costly("passlib scrypt", "r")),
        (firebase("v=2,n=14,r=8,p=1"), invalid("firebase scrypt", "version")),
        (firebase("v=1,n=0,r=8,p=1"), invalid("firebase scrypt", "n")),
        (firebase("v=1,n=31,r=8,p=1"), too_costly("firebase scrypt", "n")),
        ("$6$rounds=1000001$s$x".into(), too_costly("passlib sha512_crypt", "rounds")),
        ("$6$rounds=999$s$x".into(), invalid("passlib sha512_crypt", "rounds")),
        ("$6$seventeen-letters$x".into(), invalid("passlib sha512_crypt", "salt")),
        ("$5$s$x".into(), invalid("passlib sha256_crypt", "hash")),
        (
            "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7".into(),
            HashError::Unknown(Some("$y$")),
        ),
        ("$2x$12$x".into(), HashError::Unknown(Some("$2x$"))),
        ("$argon2x$v=19".into(), HashError::Unknown(Some("$argon2"))),
        ("md5$salt$5ebe2294ecd0e0f08eab7690d2a6ee69".into(), HashError::Unknown(Some("md5$"))),
        ("{SSHA}xyz".into(), HashError::Unknown(Some("{SSHA}"))),
        ("5ebe2294ecd0e0f08eab7690d2a6ee69".into(), HashError::Unknown(None)),
        ("hunter2$in-the-clear".into(), HashError::Unknown(None)),
        (String::new(), HashError::Unknown(None)),
        ("!5B96dqwpO8zXIxYlqi1jWUo2xcW8v9HSnjwt4IQn".into(), HashError::Unusable),
        ("*".into(), HashError::Unusable),
        ("$2b$".repeat(300), HashError::TooLong),
    ] {
        assert_eq!(PasswordHash::parse(&stored).err(), Some(expected), "{stored}");
    }
}

#[test]
fn whatever_is_stored_is_read_or_refused() {
    for (_, _, stored) in foreign() {
        for at in 0..stored.len() {
            let (before, after) = (stored.get(..at).unwrap(), stored.get(at + 1..).unwrap());
            let _ = PasswordHash::parse(before);
            for with in ["", "$", "\u{e9}", "0", "9999999999"] {
                let changed = [before, with, after].concat();
                let _ = (PasswordHash::parse(&changed), kind(&changed));
            }
        }
    }
}

#[test]
fn a_kind_has_costs_but_neither_salt_nor_hash_and_a_dummy_of_it_costs_the_same() {
    for (index, expected) in [
        (0, "$argon2id$v=19$m=65536,t=3,p=4"),
        (1, "$2b$12"),
        (7, "$argon2d$v=19$m=64,t=2,p=2"),
        (10, "$bcrypt-sha256$v=2,t=2b,r=4"),
        (11, "$bcrypt-sha256$2b,4"),
        (12, "$pbkdf2$1000"),
        (16, "$scrypt$ln=10,r=8,p=1"),
        (17, "$5$rounds=1000"),
        (19, "$6"),
        (20, "argon2$argon2id$v=19$m=64,t=2,p=2"),
        (21, "pbkdf2_sha256$1000"),
        (24, "bcrypt_sha256$$2b$04"),
        (25, "bcrypt$$2b$04"),
        (26, "scrypt$1024$$8$1"),
        (31, "pbkdf2:sha512:1000"),
        (32, "scrypt:1024:8:1"),
        (36, "$fbscrypt$v=1,n=14,r=8,p=1"),
    ] {
        assert_eq!(kind(foreign()[index].2), expected);
    }
    for (format, password, stored) in foreign() {
        let dummy = PasswordHash::parse(&dummy(&kind(stored))).unwrap();
        assert_eq!(dummy.format(), format, "{stored}");
        assert_eq!(dummy.verify(password.as_bytes()), Ok(Verdict::NoMatch), "{stored}");
    }
    for unknown in ["", "unknown", "$y$j9T", "$argon2id$v=19$m=9999999,t=3,p=4"] {
        assert!(!PasswordHash::parse(&dummy(unknown)).unwrap().is_outdated(), "{unknown}");
    }
    assert_eq!(kind("hunter2$in-the-clear"), "unknown");
}

#[test]
fn a_new_password_is_long_and_not_the_first_guess() {
    for (password, expected) in [
        ("korrekt pferd 9", Ok(())),
        ("\u{1f511}\u{1f511}\u{1f511}\u{1f511}1234", Ok(())),
        ("1234567", Err(Weak::TooShort)),
        ("\u{e9}\u{e9}\u{e9}", Err(Weak::TooShort)),
        ("12345678", Err(Weak::Common)),
        ("PassWord123", Err(Weak::Common)),
        ("zzzzzzzzzzzz", Err(Weak::Common)),
        ("Lovelace@Example.com", Err(Weak::AccountName)),
        ("lovelace", Err(Weak::AccountName)),
        (&"x9".repeat(513), Err(Weak::TooLong)),
    ] {
        assert_eq!(check_new(password, "lovelace@example.com"), expected, "{password}");
    }
}
