use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use super::*;

/// A server that answers every connection with these bytes, after a while.
fn server(answer: impl Into<Vec<u8>>, after: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = answer.into();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            let answer = answer.clone();
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                std::thread::sleep(after);
                let _ = stream.write_all(&answer);
            });
        }
    });
    address
}

fn fetcher(options: &Options) -> Fetcher {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Fetcher::new(options).unwrap()
}

fn get(url: &str) -> Result<Fetched, FetchError> {
    let quick = Options { total: Duration::from_millis(600), ..Options::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(fetcher(&quick).get(url, 1000))
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 13:47:01 GMT\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn an_answer_comes_with_status_body_and_date() {
    let address = server(ok("keys"), Duration::ZERO);
    let fetched = get(&format!("http://{address}/jwks")).unwrap();
    assert_eq!((fetched.status.as_u16(), &fetched.body[..]), (200, &b"keys"[..]));
    assert_eq!(fetched.date().unwrap().as_seconds(), 1_795_528_021);
}

#[test]
fn a_redirect_is_not_followed() {
    let inside = server(ok("inside"), Duration::ZERO);
    let redirect = format!("HTTP/1.1 302 Found\r\nlocation: http://{inside}/\r\ncontent-length: 0\r\n\r\n");
    let fetched = get(&format!("http://{}/", server(redirect, Duration::ZERO))).unwrap();
    assert_eq!((fetched.status.as_u16(), fetched.body.len()), (302, 0));
}

#[test]
fn a_body_beyond_the_limit_is_an_error_whether_its_length_is_said_or_not() {
    let long = "x".repeat(1001);
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n{long}\r\n0\r\n\r\n");
    let until_close = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{long}");
    for answer in [ok(&long), chunked, until_close] {
        let address = server(answer, Duration::ZERO);
        assert_eq!(get(&format!("http://{address}/")).unwrap_err(), FetchError::TooLarge(1000));
    }
    assert!(get(&format!("http://{}/", server(ok(&"x".repeat(1000)), Duration::ZERO))).is_ok());
}

#[test]
fn a_server_that_takes_too_long_is_given_up() {
    let started = Instant::now();
    let silent = server(ok(""), Duration::from_secs(20));
    let endless = server("HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\nx", Duration::ZERO);
    // It goes on listening, and says no more.
    for address in [silent, endless] {
        let error = get(&format!("http://{address}/")).unwrap_err();
        assert!(matches!(error, FetchError::Timeout | FetchError::Exchange(_)), "{error:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn what_cannot_be_reached_says_why() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(get(&format!("http://{address}/")).unwrap_err(), FetchError::Refused);
    assert_eq!(get("file:///etc/passwd").unwrap_err(), FetchError::Url);
    assert_eq!(get("no url").unwrap_err(), FetchError::Url);
    let not_http = server("SSH-2.0-OpenSSH\r\n", Duration::ZERO);
    assert!(matches!(get(&format!("http://{not_http}/")).unwrap_err(), FetchError::Exchange(_)));
    let not_tls = server("HTTP/1.1 400 Bad Request\r\n\r\n", Duration::ZERO);
    let error = get(&format!("https://{not_tls}/")).unwrap_err();
    assert!(matches!(error, FetchError::Tls(_)), "{error:?}");
}

/// Variables of the environment name a proxy to most clients; this process is started again with them set.
#[test]
fn a_proxy_of_the_environment_is_not_asked() {
    const TARGET: &str = "PORTCULLIS_TEST_FETCH_TARGET";
    if let Some((_, target)) = std::env::vars().find(|(name, _)| name == TARGET) {
        assert_eq!(&get(&target).unwrap().body[..], b"direct");
        return;
    }
    let proxy = server(ok("proxied"), Duration::ZERO);
    let target = server(ok("direct"), Duration::ZERO);
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fetch::tests::a_proxy_of_the_environment_is_not_asked"])
        .env(TARGET, format!("http://{target}/"))
        .envs(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"].map(|name| (name, format!("http://{proxy}"))))
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn an_expired_certificate_is_said_in_words() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let leaf = |name: &str, year: i32| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap()
    };
    let trusting = Options { ca: Some(root.pem().into_bytes()), ..Options::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for (config, options, expected) in [
        (leaf("localhost", 2040), &trusting, "no proper answer"),
        (leaf("localhost", 2021), &trusting, "TLS: the certificate expired "),
        (leaf("other.example", 2040), &trusting, "TLS: the certificate is for another name: other.example"),
        (leaf("localhost", 2040), &Options::default(), "TLS: the certificate is from an authority that is not trusted"),
    ] {
        let error = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
            tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let _ = acceptor.accept(stream).await;
            });
            fetcher(options).get(&format!("https://localhost:{port}/"), 1000).await.unwrap_err()
        });
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}
