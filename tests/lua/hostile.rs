//! Scripts that try to stay, to swell or to break out: each in a process of its own, within its time and memory.

use std::{
    process::Command,
    sync::{Mutex, atomic::AtomicUsize, atomic::Ordering},
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::engine;

const NAME: &str = "TIDEGATE_HOSTILE";
/// Beyond the time limit of 1 s.
const MOST_TIME: Duration = Duration::from_millis(1500);
const MOST_MEMORY_KIB: u64 = 128 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hostile {
    name: String,
    lua: String,
    ends: Vec<String>,
}

fn all() -> Vec<Hostile> {
    tidegate::yaml::from_str(include_str!("../../testcases/lua/hostile.yaml")).unwrap()
}

/// Not a test of its own: what a child process of the one below runs.
#[test]
fn one_in_this_process() {
    let Ok(name) = std::env::var(NAME) else { return };
    let hostile = all().into_iter().find(|h| h.name == name).unwrap();
    let engine = engine(|_| ());
    let start = Instant::now();
    let end = match engine.run(&crate::script(&hostile.lua), &json!({})) {
        Ok(_) => "ok".to_owned(),
        Err(e) => {
            assert!(e.message.len() <= 4096 && e.to_string().lines().count() == 1, "{e:?}");
            eprintln!("{e}");
            format!("{:?}", e.kind)
        }
    };
    let took = start.elapsed();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{}", json!({"end": end, "ms": took.as_millis() as u64, "kib": peak}));
    // The engine is as good as new.
    let after = engine.run(&crate::script("return {n = obj.n + 1}"), &json!({"n": 1})).unwrap();
    assert_eq!(after.value, json!({"n": 2}));
}

fn attempt(hostile: &Hostile) -> Result<(u64, u64), String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hostile::one_in_this_process", "--nocapture", "--test-threads=1"])
        .env(NAME, &hostile.name)
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{}: {stdout}{stderr}", output.status));
    }
    let line = stdout.lines().find_map(|l| l.find("{\"end\"").and_then(|i| l.get(i..))).unwrap();
    let result: Value = serde_json::from_str(line).unwrap();
    let (end, ms, kib) =
        (result["end"].as_str().unwrap(), result["ms"].as_u64().unwrap(), result["kib"].as_u64().unwrap());
    let ends = |kind: &str| hostile.ends.iter().any(|e| e == kind);
    // What uses up its steps or memory in a second here may take longer elsewhere.
    let too_slow = end == "Time" && (ends("Fuel") || ends("Memory"));
    if !ends(end) && !too_slow {
        return Err(format!("ended with {end}: {}", stderr.trim()));
    }
    if Duration::from_millis(ms) > MOST_TIME {
        return Err(format!("took {ms} ms"));
    }
    if kib > MOST_MEMORY_KIB {
        return Err(format!("took {kib} KiB"));
    }
    Ok((ms, kib))
}

#[test]
fn none_gets_far() {
    let all = all();
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    let worst = Mutex::new((0, 0));
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get()).min(4);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(hostile) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // On a machine that is busy with other things a second look decides.
                    match attempt(hostile).or_else(|e| if e.starts_with("took") { attempt(hostile) } else { Err(e) }) {
                        Ok((ms, kib)) => {
                            if std::env::var_os("TIDEGATE_HOSTILE_VERBOSE").is_some() {
                                eprintln!("{ms:>5} ms {:>4} MiB  {}", kib >> 10, hostile.name);
                            }
                            let mut worst = worst.lock().unwrap();
                            *worst = (worst.0.max(ms), worst.1.max(kib >> 10));
                        }
                        Err(e) => wrong.lock().unwrap().push(format!("{}: {e}", hostile.name)),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    println!("{} scripts, worst {:?} (ms, MiB)", all.len(), worst.into_inner().unwrap());
}
