//! Puts the parts on a screen of any size: what matters least goes first where there is no room.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::rows::{self, Row, cut};
use super::screen::Screen;
use crate::cli::output::number;
use crate::cli::status::words;
use crate::cli::style::Tone;

/// Lines for more about the selected folder.
const DETAIL_LINES: u16 = 2;
/// Below so many lines the folders come first, and nothing more is told of the selected one.
const LINES_FOR_ALL_MIN: u16 = 9;
/// The keys, in full and short.
const KEYS: [&str; 3] = [
    "up/down select   p pause or go on   o open   r rescan   ? help   q quit",
    "p pause  o open  r rescan  ? help  q quit",
    "? help  q quit",
];
const HELP: [&str; 9] = [
    "up, down (k, j)   select a folder",
    "p, blank          pause it, or let it go on",
    "o, enter          open it in the file manager",
    "r                 scan it now",
    "?                 this help",
    "q, ctrl-c         quit; the agent goes on",
    "",
    "'p2psync status' says the same in full,",
    "'p2psync status --problems' what is not in sync",
];

/// Which colours there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Palette {
    pub colour: bool,
}

impl Palette {
    fn of(self, tone: Tone) -> Style {
        let plain = Style::new();
        match tone {
            Tone::Heading => plain.add_modifier(Modifier::BOLD),
            _ if !self.colour => plain,
            Tone::Good => plain.fg(Color::Green),
            Tone::Busy => plain.fg(Color::Yellow),
            Tone::Bad => plain.fg(Color::Red),
            Tone::Faint => plain.fg(Color::DarkGray),
        }
    }
}

/// Draws all of it.
pub fn draw(frame: &mut Frame, screen: &Screen, palette: Palette) {
    let area = frame.area();
    let Some((top, rest)) = split_top(area, 1) else { return };
    put(frame, top, &[(Tone::Heading, headline(screen, area.width.into()))], palette);
    let Some(body_height) = rest.height.checked_sub(1) else { return };
    let (body, footer) = (Rect { height: body_height, ..rest }, Rect { y: rest.bottom() - 1, height: 1, ..rest });
    draw_body(frame, body, screen, palette);
    draw_footer(frame, footer, screen, palette);
    if screen.is_help {
        draw_help(frame, area, palette);
    }
}

fn headline(screen: &Screen, width: usize) -> String {
    let Some(status) = &screen.status else { return "p2psync: asking the agent ...".to_owned() };
    let state = match status.running {
        true => words::running(status),
        false => "not running: start it with 'p2psync run'".to_owned(),
    };
    let text = format!("p2psync on {}: {state}", words::device(&status.name, &status.device_id));
    cut(&text, width)
}

fn draw_body(frame: &mut Frame, body: Rect, screen: &Screen, palette: Palette) {
    let width = usize::from(body.width);
    let folders = rows::folders(screen, width.saturating_sub(2));
    let is_small = body.height < LINES_FOR_ALL_MIN;
    let folder_lines = match is_small {
        true => lines(folders.len()).clamp(1, body.height.max(1)),
        false => lines(folders.len()).clamp(1, (body.height / 3).max(1)),
    };
    let Some((area, mut rest)) = split_top(body, folder_lines) else { return };
    if screen.status.is_some() && folders.is_empty() {
        put(frame, area, &[(Tone::Faint, "no folder yet: 'p2psync folder add PATH'".to_owned())], palette);
    }
    draw_folders(frame, area, &folders, screen.selected, palette);
    if let (false, Some(folder), Some((area, below))) = (is_small, screen.folder(), split_top(rest, DETAIL_LINES)) {
        let area = Rect { x: area.x + 2, width: area.width.saturating_sub(2), ..area };
        let text = Paragraph::new(rows::detail(folder)).wrap(Wrap { trim: true });
        frame.render_widget(text.style(palette.of(Tone::Faint)), area);
        rest = below;
    }
    let peers = rows::peers(screen);
    rest = section(frame, rest, ("Peers", peers.len() as u64), &peers, (rest.height / 2).max(3), palette);
    let transfers = rows::transfers(screen, width.saturating_sub(2));
    let heading = ("Coming", rows::transfers_total(screen));
    rest = section(frame, rest, heading, &transfers, (rest.height / 2).max(3), palette);
    let events = rows::events(screen);
    section(frame, rest, ("Last events", 0), &events, rest.height, palette);
}

/// The folders from that on which lets the selected one be seen.
fn draw_folders(frame: &mut Frame, area: Rect, folders: &[Row], selected: usize, palette: Palette) {
    let room = usize::from(area.height);
    let first = (selected + 1).saturating_sub(room);
    for ((at, (tone, text)), y) in folders.iter().enumerate().skip(first).take(room).zip(area.y..) {
        let marker = if at == selected { "> " } else { "  " };
        let style = palette.of(*tone);
        let style = if at == selected { style.add_modifier(Modifier::BOLD) } else { style };
        let text = cut(&format!("{marker}{text}"), area.width.into());
        frame.render_widget(Line::from(Span::styled(text, style)), Rect { y, height: 1, ..area });
    }
}

/// A heading with rows below it, in so many lines at most. Returns what is left of the area. `total`: of how many rows
/// these are the first.
fn section(
    frame: &mut Frame,
    area: Rect,
    (heading, total): (&str, u64),
    rows: &[Row],
    lines_max: u16,
    palette: Palette,
) -> Rect {
    // A blank line, the heading and one row.
    const LINES_MIN: u16 = 3;
    if rows.is_empty() || area.height < LINES_MIN || lines_max < LINES_MIN {
        return area;
    }
    let wanted = lines(rows.len()).saturating_add(2).min(lines_max).min(area.height);
    let Some((own, rest)) = split_top(area, wanted) else { return area };
    let shown = usize::from(own.height - 2).min(rows.len());
    let more = total.saturating_sub(shown as u64);
    let more = if more > 0 { format!(" (and {} more)", number(more)) } else { String::new() };
    let title = Rect { y: own.y + 1, height: 1, ..own };
    put(frame, title, &[(Tone::Heading, format!("{heading}{more}"))], palette);
    let list = Rect { x: own.x + 2, y: own.y + 2, width: own.width.saturating_sub(2), height: own.height - 2 };
    put(frame, list, rows, palette);
    rest
}

fn draw_footer(frame: &mut Frame, area: Rect, screen: &Screen, palette: Palette) {
    let width = usize::from(area.width);
    let row = match (&screen.trouble, &screen.message) {
        (Some(trouble), _) => (Tone::Bad, trouble.clone()),
        (None, Some(message)) => (Tone::Busy, message.clone()),
        (None, None) => {
            let keys = KEYS.iter().find(|keys| keys.len() <= width).unwrap_or(&"");
            (Tone::Faint, (*keys).to_owned())
        }
    };
    put(frame, area, &[row], palette);
}

fn draw_help(frame: &mut Frame, area: Rect, palette: Palette) {
    let text_width = HELP.iter().map(|line| line.len()).max().unwrap_or(0) as u16;
    let (width, height) = ((text_width + 4).min(area.width), (HELP.len() as u16 + 2).min(area.height));
    let (x, y) = (area.x + (area.width - width) / 2, area.y + (area.height - height) / 2);
    let own = Rect { x, y, width, height };
    let lines: Vec<Line> = HELP.iter().map(|line| Line::from(format!(" {line}"))).collect();
    frame.render_widget(Clear, own);
    let block = Block::bordered().title(" Keys ").border_style(palette.of(Tone::Heading));
    frame.render_widget(Paragraph::new(lines).block(block), own);
}

/// Rows from the top, each cut to the width.
fn put(frame: &mut Frame, area: Rect, rows: &[Row], palette: Palette) {
    for ((tone, text), y) in rows.iter().zip(area.y..area.bottom()) {
        let text = cut(text, area.width.into());
        frame.render_widget(Line::from(Span::styled(text, palette.of(*tone))), Rect { y, height: 1, ..area });
    }
}

/// The first lines of an area and the others; `None` where it has none.
fn split_top(area: Rect, lines: u16) -> Option<(Rect, Rect)> {
    if area.height == 0 || area.width == 0 {
        return None;
    }
    let lines = lines.min(area.height);
    let rest = Rect { y: area.y + lines, height: area.height - lines, ..area };
    Some((Rect { height: lines, ..area }, rest))
}

fn lines(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}
