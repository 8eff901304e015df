//! Kubernetes quantities (`100m`, `1.5Gi`, `2e3`), parsed exactly and rounded as Kubernetes does.
//!
//! Not a formatter: where a quantity is shown as text, the object's own text is copied.

use std::ops::Add;

/// An amount in billionths of its unit, the finest step that Kubernetes knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    nano: i128,
}

/// Nanos of one unit, as a power of ten.
const UNIT: i32 = 9;
/// The largest power of ten that `i128` holds; anything beyond is saturated or rounded.
const MAX_POWER: i32 = 38;

/// What the suffix multiplies by.
enum Factor {
    Ten(i32),
    Two(u32),
}

impl Quantity {
    /// `None` when the text is no quantity, or has more digits than the API server ever sends
    /// (it keeps nine fractional ones). Parts finer than a billionth are rounded away from zero.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mut mantissa: i128 = 0;
        for digit in whole.chars().chain(fraction.chars()) {
            let digit = i128::from(digit.to_digit(10)?);
            mantissa = mantissa.checked_mul(10)?.checked_add(digit)?;
        }
        let mut power = UNIT - i32::try_from(fraction.len()).ok()?;
        match factor(suffix)? {
            Factor::Ten(exponent) => power = power.saturating_add(exponent),
            Factor::Two(bits) => mantissa = mantissa.saturating_mul(1 << bits),
        }
        let nano = scale(mantissa, power);
        Some(Self { nano: if negative { -nano } else { nano } })
    }

    pub fn is_zero(self) -> bool {
        self.nano == 0
    }

    /// Thousandths of the unit, rounded away from zero, cut to the range of `i64`.
    pub fn milli(self) -> i64 {
        shrink(self.nano, 1_000_000)
    }

    /// Whole units, rounded away from zero, cut to the range of `i64`.
    pub fn value(self) -> i64 {
        shrink(self.nano, 1_000_000_000)
    }
}

impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { nano: self.nano.saturating_add(other.nano) }
    }
}

fn factor(suffix: &str) -> Option<Factor> {
    Some(match suffix {
        "n" => Factor::Ten(-9),
        "u" => Factor::Ten(-6),
        "m" => Factor::Ten(-3),
        "" => Factor::Ten(0),
        "k" => Factor::Ten(3),
        "M" => Factor::Ten(6),
        "G" => Factor::Ten(9),
        "T" => Factor::Ten(12),
        "P" => Factor::Ten(15),
        "E" => Factor::Ten(18),
        "Ki" => Factor::Two(10),
        "Mi" => Factor::Two(20),
        "Gi" => Factor::Two(30),
        "Ti" => Factor::Two(40),
        "Pi" => Factor::Two(50),
        "Ei" => Factor::Two(60),
        _ => Factor::Ten(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

/// `mantissa` × 10^`power` of a mantissa that is not negative.
fn scale(mantissa: i128, power: i32) -> i128 {
    let ten = |power: i32| 10_i128.pow(power.unsigned_abs());
    match power {
        _ if mantissa == 0 => 0,
        0..=MAX_POWER => mantissa.saturating_mul(ten(power)),
        p if p > MAX_POWER => i128::MAX,
        p if p < -MAX_POWER => 1,
        _ => round_up(mantissa, ten(power)),
    }
}

/// Division that rounds away from zero.
fn round_up(amount: i128, step: i128) -> i128 {
    let whole = amount / step;
    if amount % step == 0 { whole } else { whole + amount.signum() }
}

fn shrink(nano: i128, step: i128) -> i64 {
    let amount = round_up(nano, step);
    i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text, thousandths, whole units.
    const EXACT: [(&str, i64, i64); 29] = [
        ("0", 0, 0),
        ("1", 1_000, 1),
        ("+1", 1_000, 1),
        ("-1", -1_000, -1),
        ("100m", 100, 1),
        ("-1500m", -1_500, -2),
        ("1.5", 1_500, 2),
        (".5", 500, 1),
        ("1.", 1_000, 1),
        ("0.1", 100, 1),
        ("1n", 1, 1),
        ("999999n", 1, 1),
        ("1000001n", 2, 1),
        ("250u", 1, 1),
        ("1k", 1_000_000, 1_000),
        ("1M", 1_000_000_000, 1_000_000),
        ("1G", 1_000_000_000_000, 1_000_000_000),
        ("2T", 2_000_000_000_000_000, 2_000_000_000_000),
        ("1P", 1_000_000_000_000_000_000, 1_000_000_000_000_000),
        ("1E", i64::MAX, 1_000_000_000_000_000_000),
        ("1Ki", 1_024_000, 1_024),
        ("64Mi", 67_108_864_000, 67_108_864),
        ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
        ("1Ti", 1_099_511_627_776_000, 1_099_511_627_776),
        ("1Pi", 1_125_899_906_842_624_000, 1_125_899_906_842_624),
        ("1Ei", i64::MAX, 1_152_921_504_606_846_976),
        ("2e3", 2_000_000, 2_000),
        ("2E+3", 2_000_000, 2_000),
        ("5e-1", 500, 1),
    ];

    #[test]
    fn quantities_are_read_exactly_and_rounded_away_from_zero() {
        for (text, milli, value) in EXACT {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!((quantity.milli(), quantity.value()), (milli, value), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "+", ".", "m", "1.2.3", "1x", "1 Gi", "1mi", "0x10", "--1", "1e", "1e3k"] {
            assert_eq!(Quantity::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn absurd_quantities_are_cut_to_the_range_and_never_overflow() {
        assert_eq!(Quantity::parse("1e999").unwrap().value(), i64::MAX);
        assert_eq!(Quantity::parse("-9e30").unwrap().value(), i64::MIN);
        assert_eq!(Quantity::parse("16Ei").unwrap().value(), i64::MAX);
        assert_eq!(Quantity::parse("1e-999").unwrap().milli(), 1);
        assert_eq!(Quantity::parse(&"9".repeat(100)), None);
    }

    #[test]
    fn sums_lose_nothing_before_they_are_rounded() {
        let third = Quantity::parse("333333333n").unwrap();
        let all = third + third + third;
        assert_eq!(all.milli(), 1_000);
        assert_eq!(all.value(), 1);
        assert!(all < Quantity::parse("1").unwrap());
    }
}
