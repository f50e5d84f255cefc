//! A screen as a picture for the docs: SVG with the text as text, so that it can be read, found and copied.

use std::fmt::Write;
use std::path::Path;

use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

/// Width and height of a cell, and the room around the screen, in pixels.
const CELL: (usize, usize) = (8, 17);
const MARGIN: usize = 12;
/// How far below the top of a cell its letters stand, in pixels.
const BASELINE: usize = 13;

/// What a run of cells looks like: its colours, and whether it is bold.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    colour: &'static str,
    ground: Option<&'static str>,
    is_bold: bool,
}

/// The whole screen.
pub fn svg(buffer: &Buffer) -> String {
    let (columns, lines) = (usize::from(buffer.area.width), usize::from(buffer.area.height));
    let (width, height) = (columns * CELL.0 + 2 * MARGIN, lines * CELL.1 + 2 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         font-family=\"ui-monospace, Menlo, Consolas, monospace\" font-size=\"13\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#1d1f24\"/>\n"
    );
    for (number, line) in buffer.content.chunks(columns).enumerate() {
        let top = MARGIN + number * CELL.1;
        let mut at = 0;
        for run in line.chunk_by(|a, b| look(a) == look(b)) {
            draw(&mut out, run, MARGIN + at * CELL.0, top);
            at += run.len();
        }
    }
    out.push_str("</svg>\n");
    out
}

/// Fails where the docs show another picture, or writes it there with `RENEW_DOCS` set.
pub fn assert_in_docs(name: &str, picture: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures").join(name);
    if std::env::var_os("RENEW_DOCS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, picture).unwrap();
    }
    let shown = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(shown == picture, "'RENEW_DOCS=1 cargo test --lib cli::' makes {} anew", file.display());
}

/// Lines of text with the colours that [`Style`](crate::cli::style::Style) gives, as a screen of so many columns.
pub fn screen(text: &str, columns: u16) -> Buffer {
    let lines = u16::try_from(text.lines().count()).unwrap_or(u16::MAX);
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, lines));
    for (line, y) in text.lines().zip(0..lines) {
        let mut x = 0;
        // What comes before the first mark has none.
        let marked = format!("0m{line}");
        for part in marked.split("\x1b[") {
            let (code, text) = part.split_once('m').unwrap_or(("0", part));
            let style = match code {
                "1" => Style::new().add_modifier(Modifier::BOLD),
                "32" => Style::new().fg(Color::Green),
                "33" => Style::new().fg(Color::Yellow),
                "31" => Style::new().fg(Color::Red),
                "2" => Style::new().fg(Color::DarkGray),
                _ => Style::new(),
            };
            let room = usize::from(columns.saturating_sub(x));
            (x, _) = buffer.set_stringn(x, y, text, room, style);
        }
    }
    buffer
}

fn draw(out: &mut String, run: &[Cell], left: usize, top: usize) {
    let (look, width) = (look(&run[0]), run.len() * CELL.0);
    if let Some(ground) = look.ground {
        let height = CELL.1;
        let _ =
            writeln!(out, "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" fill=\"{ground}\"/>");
    }
    let text: String = run.iter().map(Cell::symbol).collect();
    if text.trim().is_empty() {
        return;
    }
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let weight = if look.is_bold { " font-weight=\"bold\"" } else { "" };
    let (y, colour) = (top + BASELINE, look.colour);
    let _ = writeln!(
        out,
        "<text x=\"{left}\" y=\"{y}\" textLength=\"{width}\" fill=\"{colour}\"{weight} xml:space=\"preserve\">{text}</text>"
    );
}

fn look(cell: &Cell) -> Look {
    let is_reversed = cell.modifier.contains(Modifier::REVERSED);
    let colour = match cell.fg {
        Color::Green => "#7ec77b",
        Color::Yellow => "#e0c06c",
        Color::Red => "#ef7f7f",
        Color::DarkGray => "#8a8f98",
        _ => "#d8dbe0",
    };
    match is_reversed {
        true => Look { colour: "#1d1f24", ground: Some(colour), is_bold: cell.modifier.contains(Modifier::BOLD) },
        false => Look { colour, ground: None, is_bold: cell.modifier.contains(Modifier::BOLD) },
    }
}
