//! Transcripts of commands: what is typed, what is printed, what is returned. `TRYCMD=overwrite cargo test --test cli`
//! writes what is printed now.

#[test]
fn transcripts() {
    trycmd::TestCases::new()
        .env("NO_COLOR", "1")
        .env("LC_ALL", "C.UTF-8")
        .register_bin("portcullis", std::path::Path::new(env!("CARGO_BIN_EXE_portcullis")))
        .case("tests/cli/*.trycmd");
}
