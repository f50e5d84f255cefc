//! Draws lines over logarithmic axes.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// Room around the plot for what is written there: left, right, top, bottom.
const MARGINS: (f64, f64, f64, f64) = (70.0, 160.0, 40.0, 50.0);
/// Names of lines that end near each other are set apart by so much.
const NAME_HEIGHT: f64 = 14.0;
const COLOURS: [&str; 6] = ["#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a"];

/// One line.
pub struct Series {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Series {
    /// Only what is above zero has a place on logarithmic axes.
    pub fn new(name: &str, mut points: Vec<(f64, f64)>) -> Self {
        points.retain(|(x, y)| *x > 0.0 && *y > 0.0);
        Self { name: name.to_owned(), points }
    }
}

pub struct Plot {
    pub title: &'static str,
    pub across: &'static str,
    pub series: Vec<Series>,
}

/// One axis: powers of ten from the first to the last, over so many pixels.
struct Axis {
    first: i32,
    last: i32,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let first = values.clone().fold(f64::MAX, f64::min).log10().floor() as i32;
        let last = values.fold(f64::MIN_POSITIVE, f64::max).log10().ceil() as i32;
        Self { first, last: last.max(first + 1), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.first)) / f64::from(self.last - self.first);
        self.from + share * (self.to - self.from)
    }

    fn marks(&self) -> impl Iterator<Item = (f64, String)> + '_ {
        (self.first..=self.last).map(|power| (self.at(10f64.powi(power)), power_text(power)))
    }
}

fn power_text(power: i32) -> String {
    if power < 0 { format!("{:.*}", power.unsigned_abs() as usize, 10f64.powi(power)) } else { thousands(power) }
}

fn thousands(power: i32) -> String {
    let digits = format!("1{}", "0".repeat(power.unsigned_abs() as usize));
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

impl Plot {
    /// The picture, as SVG.
    pub fn svg(&self) -> String {
        let all = self.series.iter().flat_map(|series| series.points.iter());
        let (left, right, top, bottom) = MARGINS;
        let across = Axis::over(all.clone().map(|point| point.0), left, WIDTH - right);
        let up = Axis::over(all.map(|point| point.1), HEIGHT - bottom, top);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        );
        text(&mut svg, (left, 22.0), "start", self.title);
        for (x, mark) in across.marks() {
            line(&mut svg, (x, up.from), (x, up.to), "#d0d7de");
            text(&mut svg, (x, up.from + 18.0), "middle", &mark);
        }
        for (y, mark) in up.marks() {
            line(&mut svg, (across.from, y), (across.to, y), "#d0d7de");
            text(&mut svg, (across.from - 8.0, y + 4.0), "end", &mark);
        }
        text(&mut svg, ((across.from + across.to) / 2.0, HEIGHT - 10.0), "middle", self.across);
        let mut names = Vec::new();
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let places: Vec<(f64, f64)> = series.points.iter().map(|(x, y)| (across.at(*x), up.at(*y))).collect();
            for pair in places.windows(2) {
                line(&mut svg, pair[0], pair[1], colour);
            }
            for (x, y) in &places {
                let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
            }
            names.extend(places.last().map(|(x, y)| (*x, *y, &series.name, colour)));
        }
        names.sort_by(|one, other| one.1.total_cmp(&other.1));
        let mut free = 0.0;
        for (x, y, name, colour) in names {
            let y = f64::max(y, free);
            free = y + NAME_HEIGHT;
            let _ = writeln!(svg, "<g fill=\"{colour}\">");
            text(&mut svg, (x + 8.0, y + 4.0), "start", name);
            svg.push_str("</g>\n");
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(svg, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>");
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}
