//! The record of a run, and what `docs/performance.md` and its chart say of the records.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

const BEGIN: &str = "<!-- bench-peers:begin (written by `make bench-peers`) -->\n";
const END: &str = "<!-- bench-peers:end -->";

/// Those of the record that the tables show, with their titles.
const COLUMNS: [(&str, &str); 7] = [
    ("bare", "bare Pingora"),
    ("portcullis", "**Portcullis**"),
    ("portcullis_logged", "Portcullis, each decision logged"),
    ("haproxy", "HAProxy"),
    ("envoy", "Envoy"),
    ("envoy_uncached", "Envoy, no cache"),
    ("nginx", "nginx, no checks"),
];

/// Those that the chart shows, with their titles and colours.
const BARS: [(&str, &str, &str); 5] = [
    ("bare", "bare Pingora (checks nothing)", "bare"),
    ("portcullis", "Portcullis", "ours"),
    ("haproxy", "HAProxy", "haproxy"),
    ("envoy", "Envoy, with its token cache", "envoy"),
    ("nginx", "nginx (checks nothing)", "nginx"),
];

const TOKENS: [(&str, &str); 3] =
    [("one", "one, again and again"), ("pool", "of 200 users in turn"), ("first", "each for the first time")];

/// Keeps a record as the next run of its day; returns where.
pub fn keep(record: &Value) -> PathBuf {
    let folder = folder();
    std::fs::create_dir_all(&folder).unwrap();
    let date = record["date"].as_str().unwrap();
    let file = (1..).map(|run| folder.join(format!("{date}-{run}.json"))).find(|file| !file.exists()).unwrap();
    std::fs::write(&file, format!("{record:#}\n")).unwrap();
    file
}

/// Writes the page and the chart.
pub fn write() {
    for (file, text) in texts() {
        std::fs::write(&file, text).unwrap();
    }
}

/// The page and the chart, and what they must say.
pub fn texts() -> Vec<(PathBuf, String)> {
    let runs = newest();
    if runs.is_empty() {
        return Vec::new();
    }
    let page = root().join("docs/performance.md");
    let now = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = now.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    vec![
        (page, format!("{before}{BEGIN}\n{}\n{END}{after}", tables(&runs))),
        (root().join("docs/performance.svg"), chart(&runs)),
    ]
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder() -> PathBuf {
    root().join("docs/performance")
}

/// The last two runs of the newest day.
fn newest() -> Vec<Value> {
    let mut runs: Vec<(String, u64, Value)> = Vec::new();
    for file in std::fs::read_dir(folder()).into_iter().flatten().flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let Some((date, run)) = name.strip_suffix(".json").and_then(|name| name.rsplit_once('-')) else { continue };
        let text = std::fs::read_to_string(file.path()).unwrap();
        runs.push((date.to_owned(), run.parse().unwrap(), serde_json::from_str(&text).unwrap()));
    }
    runs.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    let day = runs.last().map(|(day, ..)| day.clone());
    runs.retain(|(date, ..)| Some(date) == day.as_ref());
    let skip = runs.len().saturating_sub(2);
    runs.into_iter().skip(skip).map(|(.., run)| run).collect()
}

/// The value of a gateway in a cell, in each run.
fn values(runs: &[Value], algorithm: &str, tokens: &str, gateway: &str, value: &str) -> Vec<f64> {
    let cells = runs.iter().filter_map(|run| {
        run["cells"].as_array()?.iter().find(|cell| cell["algorithm"] == algorithm && cell["tokens"] == tokens)
    });
    cells.filter_map(|cell| cell[gateway][value].as_f64()).collect()
}

fn joined(values: &[f64], digits: usize) -> String {
    values.iter().map(|value| format!("{value:.digits$}")).collect::<Vec<_>>().join(" / ")
}

fn tables(runs: &[Value]) -> String {
    let last = runs.last().unwrap();
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let mut commits: Vec<String> = runs.iter().map(|run| text(&run["commit"])).collect();
    commits.dedup();
    let mut out = format!(
        "![Processor time per request](performance.svg)\n\n{}, {} of commit `{}`: HAProxy {}, Envoy {}, nginx {}, on {} \
         cores ({}).\nWhere two values stand, they are those of the two runs.\n\n",
        text(&last["date"]),
        if runs.len() == 2 { "two runs" } else { "one run" },
        commits.join("` and `"),
        text(&last["versions"]["HAProxy"]),
        text(&last["versions"]["Envoy"]),
        text(&last["versions"]["nginx"]),
        last["machine"]["cores"],
        text(&last["machine"]["processor"]),
    );
    let head = |out: &mut String, title: &str| {
        let _ = writeln!(out, "### {title}\n");
        let titles: Vec<&str> = COLUMNS.iter().map(|(_, title)| *title).collect();
        let _ = writeln!(out, "| | tokens | {} |\n|---|---|{}", titles.join(" | "), "---:|".repeat(COLUMNS.len()));
    };
    let mut table = |title: &str, shows: &[&str], cell: &dyn Fn(&str, &str, &str) -> String| {
        head(&mut out, title);
        for algorithm in ["HS256", "RS256", "ES256"] {
            for (tokens, what) in TOKENS.iter().filter(|(tokens, _)| shows.contains(tokens)) {
                let cells: Vec<String> = COLUMNS.iter().map(|(name, _)| cell(algorithm, tokens, name)).collect();
                let _ = writeln!(out, "| {algorithm} | {what} | {} |", cells.join(" | "));
            }
        }
        out.push('\n');
    };
    let all = ["one", "pool", "first"];
    table("Processor time per request, in microseconds", &all, &|algorithm, tokens, name| {
        joined(&values(runs, algorithm, tokens, name, "cpu_us"), 1)
    });
    table("The same, as a multiple of the bare Pingora's in the same run", &all, &|algorithm, tokens, name| {
        joined(&values(runs, algorithm, tokens, name, "ratio"), 2)
    });
    let rate = &last["rate"];
    for (value, title) in [("p50_us", "Half of the"), ("p99_us", "99 of 100")] {
        let title = format!("{title} answers came within, in microseconds, at {rate} requests a second");
        table(&title, &all, &|algorithm, tokens, name| joined(&values(runs, algorithm, tokens, name, value), 0));
    }
    out.push_str("### Resident memory, in MiB\n\n| | idle | after the load |\n|---|---:|---:|\n");
    for (name, title) in COLUMNS {
        let of = |value: &str| {
            joined(&runs.iter().filter_map(|run| run["memory"][name][value].as_f64()).collect::<Vec<_>>(), 1)
        };
        let _ = writeln!(out, "| {title} | {} | {} |", of("idle_mib"), of("loaded_mib"));
    }
    let of = |value: &str| {
        let values: Vec<String> = runs.iter().map(|run| run["reload"][value].to_string()).collect();
        values.join(" / ")
    };
    let _ = write!(
        out,
        "\n### Reload of {} routes\n\n\
         - From the file's change until the new set counts: {} ms in the median, {} ms at most (the pause that waits for \
         more changes is in it); reading, checking and compiling alone: {} ms.\n\
         - 99 of 100 answers at {} requests a second: within {} µs without reloads, {} µs with a reload every two \
         seconds, {} µs of those that came while one was under way.\n",
        last["reload"]["routes"],
        of("until_live_ms_median"),
        of("until_live_ms_slowest"),
        of("own_ms_median"),
        last["reload"]["rate"],
        of("quiet_p99_us"),
        of("with_reloads_p99_us"),
        of("while_reloading_p99_us"),
    );
    out
}

// === the chart ===

const WIDTH: f64 = 880.0;
const PANEL: f64 = 276.0;
const TOP: f64 = 96.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const PLOT: f64 = 190.0;

fn chart(runs: &[Value]) -> String {
    let mean = |algorithm: &str, tokens: &str, gateway: &str| {
        let values = values(runs, algorithm, tokens, gateway, "cpu_us");
        values.iter().sum::<f64>() / values.len().max(1) as f64
    };
    let panels = [("one", "The same token again and again"), ("first", "Each token for the first time")];
    let algorithms = ["HS256", "RS256", "ES256"];
    let highest = panels
        .iter()
        .flat_map(|(tokens, _)| algorithms.iter().map(move |algorithm| (tokens, algorithm)))
        .flat_map(|(tokens, algorithm)| BARS.iter().map(move |(name, ..)| (tokens, algorithm, name)))
        .map(|(tokens, algorithm, name)| mean(algorithm, tokens, name))
        .fold(1.0, f64::max);
    let step = [5.0, 10.0, 20.0, 25.0, 50.0, 100.0, 200.0].into_iter().find(|step| highest / step <= 6.0);
    let step = step.unwrap_or(500.0);
    let scale = (highest / step).ceil() * step;
    let height = TOP + PANEL * 2.0;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-labelledby="title what">
<title id="title">Processor time per authenticated request</title>
<desc id="what">Bars in microseconds for a bare Pingora, Portcullis, HAProxy, Envoy and nginx, by algorithm, with known tokens and with new ones. The numbers are in docs/performance.md.</desc>
<style>
text {{ font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1f2328; font-size: 13px }}
.title {{ font-size: 18px; font-weight: 600 }}
.panel {{ font-size: 14px; font-weight: 600 }}
.small, .value {{ font-size: 11px }}
.paper {{ fill: #ffffff }} .line {{ stroke: #d1d9e0; stroke-width: 1 }} .axis {{ stroke: #59636e; stroke-width: 1 }}
.bare {{ fill: #8c959f }} .ours {{ fill: #1a7f37 }} .haproxy {{ fill: #218bff }} .envoy {{ fill: #bf3989 }} .nginx {{ fill: #bb8009 }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #f0f6fc }}
.paper {{ fill: #0d1117 }} .line {{ stroke: #30363d }} .axis {{ stroke: #9198a1 }}
.bare {{ fill: #9198a1 }} .ours {{ fill: #3fb950 }} .haproxy {{ fill: #58a6ff }} .envoy {{ fill: #f778ba }} .nginx {{ fill: #d29922 }}
}}
</style>
<rect class="paper" width="{WIDTH}" height="{height}"/>
<text class="title" x="16" y="30">Processor time per authenticated request, in microseconds (less is better)</text>
"#
    );
    let mut x = 16.0;
    for (_, title, class) in BARS {
        let _ = writeln!(
            svg,
            r#"<rect class="{class}" x="{x}" y="50" width="12" height="12"/><text class="small" x="{}" y="60">{title}</text>"#,
            x + 17.0
        );
        x += 17.0 + title.len() as f64 * 5.9 + 18.0;
    }
    for (number, (tokens, title)) in panels.iter().enumerate() {
        let top = TOP + PANEL * number as f64;
        let base = top + 24.0 + PLOT;
        let _ = writeln!(svg, r#"<text class="panel" x="{LEFT}" y="{}">{title}</text>"#, top + 6.0);
        let mut tick = 0.0;
        while tick <= scale {
            let y = base - tick / scale * PLOT;
            let class = if tick == 0.0 { "axis" } else { "line" };
            let _ = writeln!(
                svg,
                r#"<line class="{class}" x1="{LEFT}" y1="{y:.1}" x2="{}" y2="{y:.1}"/><text class="small" text-anchor="end" x="{}" y="{:.1}">{tick}</text>"#,
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            );
            tick += step;
        }
        let middle = base - PLOT / 2.0;
        let _ = writeln!(
            svg,
            r#"<text class="small" text-anchor="middle" transform="rotate(-90 22 {middle})" x="22" y="{middle}">µs per request</text>"#
        );
        let group = (WIDTH - LEFT - RIGHT) / algorithms.len() as f64;
        let wide = 42.0;
        for (at, algorithm) in algorithms.iter().enumerate() {
            let bars = BARS.len() as f64 * (wide + 6.0) - 6.0;
            let start = LEFT + group * at as f64 + (group - bars) / 2.0;
            for (bar, (name, _, class)) in BARS.iter().enumerate() {
                let value = mean(algorithm, tokens, name);
                let tall = value / scale * PLOT;
                let x = start + bar as f64 * (wide + 6.0);
                let _ = writeln!(
                    svg,
                    r#"<rect class="{class}" x="{x:.1}" y="{:.1}" width="{wide}" height="{tall:.1}"/><text class="value" text-anchor="middle" x="{:.1}" y="{:.1}">{value:.1}</text>"#,
                    base - tall,
                    x + wide / 2.0,
                    base - tall - 4.0
                );
            }
            let _ = writeln!(
                svg,
                r#"<text text-anchor="middle" x="{:.1}" y="{:.1}">{algorithm}</text>"#,
                start + bars / 2.0,
                base + 18.0
            );
        }
        let _ = writeln!(
            svg,
            r#"<text class="small" text-anchor="middle" x="{:.1}" y="{:.1}">algorithm of the token's signature</text>"#,
            LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
            base + 34.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}
