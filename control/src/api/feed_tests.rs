#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
use super::*;

fn key(name: &str) -> Key {
    ("instances", name.to_owned())
}

fn state(objects: &[(&str, u32)]) -> BTreeMap<Key, Value> {
    objects.iter().map(|(name, value)| (key(name), serde_json::json!({ "v": value }))).collect()
}

fn join(feed: &Feed, behind: Option<&str>) -> (Vec<String>, mpsc::Receiver<Bytes>) {
    let (frames, coming) = feed.join(RESOURCES.into(), behind, Cut::new().0);
    (frames.iter().map(|frame| String::from_utf8(frame.to_vec()).unwrap()).collect(), coming)
}

fn id(frame: &str) -> &str {
    frame.lines().find_map(|line| line.strip_prefix("id: ")).unwrap()
}

#[test]
fn a_watcher_hears_what_there_is_then_each_change_and_goes_on_where_it_was() {
    let feed = Feed::default();
    feed.take(state(&[("a", 1), ("b", 1)]));
    let (first, mut coming) = join(&feed, None);
    assert_eq!(first.len(), 3);
    assert!(first[2].contains("event: listed") && !first[0].contains("id:"), "{first:?}");
    feed.take(state(&[("a", 2), ("c", 1)]));
    feed.take(state(&[("a", 2), ("c", 1)]));
    let told: Vec<String> =
        std::iter::from_fn(|| coming.try_recv().ok()).map(|f| String::from_utf8(f.to_vec()).unwrap()).collect();
    let kinds: Vec<_> = told.iter().map(|f| f.lines().nth(1).unwrap()).collect();
    assert_eq!(kinds, ["event: delete", "event: put", "event: put"], "{told:?}");
    assert!(told[1].contains("\"object\":{\"v\":2}"), "{told:?}");
    // Behind each of them, the rest.
    assert_eq!(join(&feed, Some(id(&first[2]))).0, told);
    assert_eq!(join(&feed, Some(id(&told[0]))).0, told[1..]);
    assert_eq!(join(&feed, Some(id(&told[2]))).0, [""; 0]);
    for lost in ["1-1", "x", "", &format!("{}-99", feed.run)] {
        let (frames, _) = join(&feed, Some(lost));
        assert!(frames[0].contains("event: reset") && frames.len() == 4, "{lost}: {frames:?}");
    }
}

#[test]
fn what_is_remembered_is_bounded() {
    let feed = Feed::default();
    (0..=REMEMBERED as u32).for_each(|value| feed.take(state(&[("a", value)])));
    let run = feed.run;
    assert_eq!(join(&feed, Some(&format!("{run}-1"))).0.len(), REMEMBERED);
    assert!(join(&feed, Some(&format!("{run}-0"))).0[0].contains("event: reset"));
}

#[test]
fn a_slow_watcher_is_cut_and_others_are_not() {
    let feed = Feed::default();
    let (slow_cut, mut slow_ends) = Cut::new();
    let (_, slow) = feed.join(RESOURCES.into(), None, slow_cut);
    let (_, mut quick) = join(&feed, None);
    for value in 0..=WAITING as u32 {
        feed.take(state(&[("a", value)]));
        assert!(quick.try_recv().is_ok());
    }
    assert!(slow_ends.is_ordered(), "its connection goes on");
    assert_eq!(feed.state.lock().unwrap().watchers.len(), 1);
    drop((slow, quick));
    feed.keep_alive();
    assert_eq!(feed.state.lock().unwrap().watchers.len(), 0);
    let _ = &mut slow_ends;
}
