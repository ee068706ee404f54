[
    ("A07", "tests/it/a.rs: a rewrite is refused when the policy loads"),
]
