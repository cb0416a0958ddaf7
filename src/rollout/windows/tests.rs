use proptest::prelude::*;

use super::*;

fn window(days: &[Day], from: &str, to: &str, zone: &str) -> ChangeWindow {
    let (from, to) = (from.to_owned(), to.to_owned());
    ChangeWindow { name: None, days: days.to_vec(), from, to, time_zone: (!zone.is_empty()).then(|| zone.to_owned()) }
}

fn freeze(from: &str, to: &str, zone: &str) -> Freeze {
    let time_zone = (!zone.is_empty()).then(|| zone.to_owned());
    Freeze { name: None, from: from.to_owned(), to: to.to_owned(), time_zone }
}

fn read(windows: &[ChangeWindow], freezes: &[Freeze]) -> Windows {
    Windows::read("spec.", windows, freezes).unwrap()
}

/// `now`, or the moment, or `never`.
fn next(all: &[&Windows], now: &str) -> String {
    match next_allowed(all, now.parse().unwrap()) {
        Opening::Now => "now".to_owned(),
        Opening::At { time, .. } => time.to_string(),
        Opening::Never { .. } => "never".to_owned(),
    }
}

const WORK: [Day; 4] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu];

/// What it is about, windows, freezes, now, and when the next step may begin.
type Row = (&'static str, Vec<ChangeWindow>, Vec<Freeze>, &'static str, &'static str);

#[test]
fn windows_and_freezes() {
    // 2026-11-22 is a Sunday.
    let berlin = |from, to| window(&WORK, from, to, "Europe/Berlin");
    let every_day = |from, to| window(&[], from, to, "");
    let rows: [Row; 19] = [
        ("nothing is asked for", vec![], vec![], "2026-11-22T03:00:00Z", "now"),
        ("over the weekend", vec![berlin("09:00", "16:00")], vec![], "2026-11-22T03:00:00Z", "2026-11-23T08:00:00Z"),
        ("as it opens", vec![berlin("09:00", "16:00")], vec![], "2026-11-23T08:00:00Z", "now"),
        ("before it closes", vec![berlin("09:00", "16:00")], vec![], "2026-11-23T14:59:59Z", "now"),
        ("as it closes", vec![berlin("09:00", "16:00")], vec![], "2026-11-23T15:00:00Z", "2026-11-24T08:00:00Z"),
        ("over midnight, before it", vec![every_day("22:00", "04:00")], vec![], "2026-11-22T23:00:00Z", "now"),
        ("over midnight, after it", vec![every_day("22:00", "04:00")], vec![], "2026-11-22T03:59:00Z", "now"),
        (
            "over midnight, out",
            vec![every_day("22:00", "04:00")],
            vec![],
            "2026-11-22T04:00:00Z",
            "2026-11-22T22:00:00Z",
        ),
        (
            "Thursday's reaches into Friday",
            vec![window(&WORK, "22:00", "04:00", "")],
            vec![],
            "2026-11-27T01:00:00Z",
            "now",
        ),
        (
            "Friday has none",
            vec![window(&WORK, "22:00", "04:00", "")],
            vec![],
            "2026-11-27T23:00:00Z",
            "2026-11-30T22:00:00Z",
        ),
        ("to the end of the day", vec![every_day("20:00", "24:00")], vec![], "2026-11-22T23:59:59Z", "now"),
        ("all day long", vec![every_day("00:00", "24:00")], vec![], "2026-11-22T23:59:59Z", "now"),
        (
            "two windows, the nearer",
            vec![every_day("20:00", "21:00"), every_day("12:00", "13:00")],
            vec![],
            "2026-11-22T11:00:00Z",
            "2026-11-22T12:00:00Z",
        ),
        (
            "a frozen date has its end",
            vec![],
            vec![freeze("2026-11-20", "2026-11-22", "")],
            "2026-11-22T23:00:00Z",
            "2026-11-23T00:00:00Z",
        ),
        (
            "a freeze ends outside a window",
            vec![berlin("09:00", "16:00")],
            vec![freeze("2026-11-20", "2026-11-23T20:00", "Europe/Berlin")],
            "2026-11-23T10:00:00Z",
            "2026-11-24T08:00:00Z",
        ),
        (
            "one freeze after another",
            vec![],
            vec![freeze("2026-11-20", "2026-11-22", ""), freeze("2026-11-23", "2026-11-24", "")],
            "2026-11-22T10:00:00Z",
            "2026-11-25T00:00:00Z",
        ),
        ("frozen for ten years", vec![], vec![freeze("2020-01-01", "2032-01-01", "")], "2026-11-22T10:00:00Z", "never"),
        (
            "a window in the hour that is left out",
            vec![window(&[], "02:15", "02:45", "Europe/Berlin")],
            vec![],
            "2027-03-28T00:30:00Z",
            "2027-03-28T01:15:00Z",
        ),
        (
            "the hour that comes twice counts once",
            vec![window(&[], "02:15", "02:45", "Europe/Berlin")],
            vec![],
            "2026-10-25T01:20:00Z",
            "2026-10-26T01:15:00Z",
        ),
    ];
    for (what, windows, freezes, now, wanted) in rows {
        assert_eq!(next(&[&read(&windows, &freezes)], now), wanted, "{what}");
    }
}

#[test]
fn all_authors_must_allow_it() {
    let mine = read(&[window(&[], "08:00", "12:00", "")], &[]);
    let all = read(&[window(&[], "10:00", "20:00", "")], &[freeze("2026-11-23", "2026-11-23", "")]);
    assert_eq!(next(&[&mine, &all], "2026-11-22T09:00:00Z"), "2026-11-22T10:00:00Z");
    assert_eq!(next(&[&all, &mine], "2026-11-22T13:00:00Z"), "2026-11-24T10:00:00Z");
    let apart = read(&[window(&[], "13:00", "20:00", "")], &[]);
    assert_eq!(next(&[&mine, &apart], "2026-11-22T13:00:00Z"), "never");
}

#[test]
fn clocks_are_put_forward_and_back_inside_a_window() {
    let night = read(&[window(&[], "01:30", "03:30", "Europe/Berlin")], &[]);
    // 01:30 to 03:30 is one hour in March and three in October.
    assert_eq!(next(&[&night], "2027-03-28T01:29:59Z"), "now");
    assert_eq!(next(&[&night], "2027-03-28T01:30:00Z"), "2027-03-28T23:30:00Z");
    assert_eq!(next(&[&night], "2026-10-24T23:30:00Z"), "now");
    assert_eq!(next(&[&night], "2026-10-25T02:29:59Z"), "now");
    assert_eq!(next(&[&night], "2026-10-25T02:30:00Z"), "2026-10-26T00:30:00Z");
}

#[test]
fn what_cannot_be_read_is_named() {
    let of = |windows: &[ChangeWindow], freezes: &[Freeze]| {
        Windows::read("spec.", windows, freezes).unwrap_err().to_string()
    };
    assert_eq!(
        of(&[window(&[], "09:00", "16:00", "Europe/Bernlin")], &[]),
        "spec.changeWindows[0].timeZone: \"Europe/Bernlin\" is not known; use a name such as Europe/Berlin or UTC"
    );
    for text in ["9:00", "25:00", "09:60", "", "09:00:00", "-1:00", "ab:cd"] {
        assert_eq!(
            of(&[window(&[], text, "16:00", "")], &[]),
            format!("spec.changeWindows[0].from: {text:?} is no time of the day; write it as 09:00")
        );
    }
    for text in ["2026-13-01", "2026-02-30", "tomorrow", "2026-12-20T25:00", "2026-12-20T18:00Z", ""] {
        assert_eq!(
            of(&[], &[freeze(text, "2027-01-01", "")]),
            format!("spec.freezes[0].from: {text:?} is no date or time; write it as 2026-12-20 or 2026-12-20T18:00")
        );
    }
    assert_eq!(
        of(&[], &[freeze("2026-12-20T18:00", "2026-12-20T18:00", "")]),
        "spec.freezes[0].to: \"2026-12-20T18:00\" is not after from, \"2026-12-20T18:00\""
    );
}

const ALL_DAYS: [Day; 7] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];
const SOME_ZONES: [&str; 5] = ["", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"];

fn windows() -> impl Strategy<Value = Windows> {
    let time = || (0_u32..24, 0_u32..60).prop_map(|(h, m)| format!("{h:02}:{m:02}"));
    let window =
        (prop::sample::subsequence(&ALL_DAYS[..], 0..4), time(), time(), prop::sample::select(&SOME_ZONES[..]))
            .prop_map(|(days, from, to, zone)| window(&days, &from, &to, zone));
    let freeze = (1_u32..28, 0_u32..9, prop::sample::select(&SOME_ZONES[..])).prop_map(|(day, more, zone)| {
        freeze(&format!("2026-10-{day:02}"), &format!("2026-10-{:02}", (day + more).min(31)), zone)
    });
    (prop::collection::vec(window, 0..3), prop::collection::vec(freeze, 0..3)).prop_map(|(w, f)| read(&w, &f))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_next_moment_is_allowed_and_nothing_before_it(
        a in windows(), b in windows(), minute in 0_i64..45 * 24 * 60, samples in prop::collection::vec(0.0_f64..1.0, 24),
    ) {
        // October 2026, in which clocks are put back, and both weeks around it.
        let now: Timestamp = "2026-09-24T00:00:00Z".parse().unwrap();
        let now = now.checked_add(minute.minutes()).unwrap();
        let both = [&a, &b];
        let is_allowed = |at| next_allowed(&both, at) == Opening::Now;
        let end = match next_allowed(&both, now) {
            Opening::Now => return Ok(()),
            Opening::At { time, .. } => {
                prop_assert!(time > now && is_allowed(time));
                time
            }
            Opening::Never { .. } => now.checked_add((60 * 24).hours()).unwrap(),
        };
        let seconds = end.duration_since(now).as_secs();
        for part in samples.into_iter().chain([0.0]) {
            let at = now.checked_add((((seconds - 1) as f64 * part) as i64).seconds()).unwrap();
            prop_assert!(!is_allowed(at), "{at} is before {end}");
        }
    }

    #[test]
    fn no_windows_and_no_freezes_never_wait(minute in 0_i64..400 * 24 * 60) {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let now = now.checked_add(minute.minutes()).unwrap();
        prop_assert_eq!(next_allowed(&[&Windows::default(), &Windows::default()], now), Opening::Now);
    }
}
