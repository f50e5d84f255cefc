//! A QR code as text: two modules to a character, one above the other.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// Lines that are to stay visible above and below a code.
const OTHER_LINES: usize = 12;

/// A picture of a QR code.
pub struct Picture {
    lines: Vec<String>,
}

impl Picture {
    /// The QR code that says this text; `None` where it is too long for one.
    pub fn of(text: &str) -> Option<Self> {
        let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
        let lines = code.render::<Dense1x2>().module_dimensions(1, 1).build();
        Some(Self { lines: lines.lines().map(str::to_owned).collect() })
    }

    /// Whether it can be seen as a whole on a terminal of so many columns and lines.
    pub fn fits(&self, columns: u16, lines: u16) -> bool {
        let width = self.lines.first().map_or(0, |line| line.chars().count());
        width <= usize::from(columns) && self.lines.len() + OTHER_LINES <= usize::from(lines)
    }

    /// The picture in black on white, whatever the colours of the terminal are: cameras need the contrast.
    pub fn coloured(&self) -> String {
        self.lines.iter().map(|line| format!("\x1b[30;107m{line}\x1b[0m\n")).collect()
    }

    /// The picture without colours.
    pub fn plain(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_square_and_knows_where_it_fits() {
        let picture = Picture::of("p2psync://pair?code=K7QF29XM").unwrap();
        let width = picture.lines[0].chars().count();
        assert_eq!(picture.lines.len(), width.div_ceil(2));
        assert!(picture.lines.iter().all(|line| line.chars().count() == width));
        assert!(picture.fits(width as u16, 60) && !picture.fits(width as u16 - 1, 60) && !picture.fits(200, 24));
        assert!(picture.coloured().lines().all(|line| line.ends_with("\x1b[0m")));
        assert!(!picture.plain().contains('\x1b'));
    }

    #[test]
    fn what_no_code_holds_gives_no_picture() {
        assert!(Picture::of(&"x".repeat(4000)).is_none());
    }
}
