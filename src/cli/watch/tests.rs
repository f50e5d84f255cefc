//! The screen in several sizes, and what keys do.

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::agent::News;
use super::draw::{Palette, draw};
use super::picture;
use super::screen::{Key, Screen, Wish};
use crate::api::EventItem;
use crate::cli::status::samples;

fn screen() -> Screen {
    let mut screen = Screen { now_ms: samples::NOW_MS, ..Screen::default() };
    let event = |ago_s: i64, kind: &str, text: &str| EventItem {
        time_ms: samples::NOW_MS - ago_s * 1000,
        kind: kind.into(),
        text: text.into(),
        ..EventItem::default()
    };
    let events = vec![
        event(300, "received", "desktop changed notes.txt"),
        event(200, "conflict", "plan.odt was changed here and on phone"),
        event(4, "deleted", "desktop deleted \x1b[31mold.txt"),
    ];
    screen.take(News::Looked(Ok(Box::new((samples::busy(), events)))));
    screen
}

/// What a person may see on an ordinary day.
fn everyday() -> Screen {
    let event = |kind: &str, text: &str| EventItem { kind: kind.into(), text: text.into(), ..EventItem::default() };
    let events = vec![
        event("received", "photos/2026/lake.jpg: received from phone"),
        event("conflict", "plan.odt: changed on two devices at once; this device's version was kept as ..."),
        event("deleted", "old list.txt: deleted by desktop; the file is in history"),
    ];
    let mut screen = Screen { now_ms: samples::NOW_MS, ..Screen::default() };
    screen.take(News::Looked(Ok(Box::new((samples::everyday(), events)))));
    screen
}

fn drawn(screen: &Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, screen, Palette { colour: true })).unwrap();
    // Times of day depend on the zone of the machine.
    without_times(&terminal.backend().to_string())
}

#[test]
fn the_picture_in_the_docs_shows_the_screen_as_it_is() {
    let mut terminal = Terminal::new(TestBackend::new(100, 22)).unwrap();
    terminal.draw(|frame| draw(frame, &everyday(), Palette { colour: true })).unwrap();
    let mut picture = without_times(&picture::svg(terminal.backend().buffer()));
    for time in ["14:03:12", "14:01:40", "13:58:05"] {
        picture = picture.replacen("00:00:00", time, 1);
    }
    picture::assert_in_docs("watch.svg", &picture);
}

fn without_times(text: &str) -> String {
    let mut out: Vec<char> = text.chars().collect();
    for at in 0..out.len().saturating_sub(7) {
        let is_time = (0..8).all(|i| if i == 2 || i == 5 { out[at + i] == ':' } else { out[at + i].is_ascii_digit() });
        if is_time {
            out[at..at + 8].copy_from_slice(&['0', '0', ':', '0', '0', ':', '0', '0']);
        }
    }
    out.into_iter().collect()
}

#[test]
fn the_screen_shows_all_that_it_has_room_for() {
    let screen = screen();
    insta::assert_snapshot!("watch_80x24", drawn(&screen, 80, 24));
    insta::assert_snapshot!("watch_120x40", drawn(&screen, 120, 40));
    insta::assert_snapshot!("watch_40x10", drawn(&screen, 40, 10));
    insta::assert_snapshot!("watch_40x5", drawn(&screen, 40, 5));
}

#[test]
fn no_size_is_too_small_or_too_large() {
    let mut screen = screen();
    for is_help in [false, true] {
        screen.is_help = is_help;
        for (width, height) in [(1, 1), (2, 1), (1, 30), (200, 1), (20, 2), (30, 3), (300, 100)] {
            drawn(&screen, width, height);
        }
    }
    drawn(&Screen::default(), 80, 24);
}

#[test]
fn what_is_heard_first_and_what_goes_wrong_is_told() {
    insta::assert_snapshot!("watch_before", drawn(&Screen::default(), 60, 5));
    let mut screen = screen();
    screen.take(News::Looked(Err("the agent has not answered in time".into())));
    assert!(drawn(&screen, 80, 24).contains("the agent has not answered in time"));
    screen.take(News::Looked(Ok(Box::new((samples::in_sync(), Vec::new())))));
    assert!(!drawn(&screen, 80, 24).contains("has not answered"));
    screen.is_help = true;
    insta::assert_snapshot!("watch_help", drawn(&screen, 80, 24));
}

#[test]
fn keys_act_on_the_selected_folder() {
    let mut screen = screen();
    let pause = |id: &str, label: &str, paused| Wish::Pause { id: id.into(), label: label.into(), paused };
    assert_eq!(screen.press(Key::Pause), Some(pause("default", "P2PSync", true)));
    assert_eq!(screen.press(Key::Up), None);
    assert_eq!(screen.selected, 0);
    for _ in 0..9 {
        screen.press(Key::Down);
    }
    assert_eq!(screen.selected, screen.folders().len() - 1);
    assert_eq!(screen.press(Key::Pause), Some(pause("music", "Music", false)));
    assert_eq!(screen.press(Key::Rescan), Some(Wish::Rescan { id: "music".into(), label: "Music".into() }));
    assert_eq!(screen.press(Key::Open), Some(Wish::Open { id: "music".into(), label: "Music".into() }));
    assert_eq!(Screen::default().press(Key::Pause), None);
}

#[test]
fn under_the_help_nothing_is_pressed() {
    let mut screen = screen();
    screen.press(Key::Help);
    assert!(screen.is_help);
    assert_eq!((screen.press(Key::Pause), screen.is_help), (None, false));
    screen.press(Key::Help);
    screen.press(Key::Help);
    assert!(!screen.is_help);
}

#[test]
fn the_selection_stays_with_its_folder_when_another_goes() {
    let mut screen = screen();
    screen.press(Key::Down);
    screen.press(Key::Down);
    let id = screen.folder().unwrap().id.clone();
    let mut status = samples::busy();
    status.folders.remove(0);
    screen.take(News::Looked(Ok(Box::new((status, Vec::new())))));
    assert_eq!(screen.folder().unwrap().id, id);
    let mut status = samples::busy();
    status.folders.truncate(1);
    screen.take(News::Looked(Ok(Box::new((status, Vec::new())))));
    assert_eq!(screen.selected, 0);
}

#[test]
fn a_second_press_takes_back_the_first_also_before_anything_was_heard() {
    let mut screen = screen();
    let mut pauses = || match screen.press(Key::Pause) {
        Some(Wish::Pause { paused, .. }) => paused,
        other => panic!("{other:?}"),
    };
    assert_eq!([pauses(), pauses(), pauses()], [true, false, true]);
    // What was heard before the wish was done tells of the time before.
    for _ in 0..3 {
        let news = News::Looked(Ok(Box::new((samples::busy(), Vec::new()))));
        screen.take(news);
        assert!(matches!(screen.press(Key::Pause), Some(Wish::Pause { .. })));
        screen.take(News::Done("done".into()));
    }
    for _ in 0..3 {
        screen.take(News::Done("done".into()));
    }
    screen.take(News::Looked(Ok(Box::new((samples::busy(), Vec::new())))));
    assert!(matches!(screen.press(Key::Pause), Some(Wish::Pause { paused: true, .. })));
}
