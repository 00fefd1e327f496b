//! Documents into types, with the leniency of Go's `encoding/json`.
//!
//! | in the document                       | in the type                                                              |
//! |---------------------------------------|--------------------------------------------------------------------------|
//! | `null` for a field                    | the field's default, as if it were not there                             |
//! | `null` in a list or as a map's value  | the empty value: `""`, 0, false, an empty list, object or struct         |
//! | a name twice                          | both are read, one over the other: the last text, number or list element |
//! |                                       | counts, fields of objects come together                                  |
//! | a name in another case                | the field of that name, if none has exactly this one                     |
//! | an unknown name                       | left out, whatever its value is                                          |
//! | a value of another type               | an error that names the field                                            |
//!
//! A value is therefore a list of places, most often of one. Depth is bounded, since types that hold any value recurse.

use std::borrow::Cow;

use serde::de::value::{CowStrDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::DecodeError;
use super::document::{Document, Kind};

/// How deep what is kept may be; what is left out may be deeper.
const MAX_KEPT_DEPTH: usize = 128;

/// The places in a document that say what one value is, in order.
#[derive(Debug, Clone)]
pub(super) struct Value<'d> {
    document: &'d Document<'d>,
    places: Places,
    depth: usize,
}

#[derive(Debug, Clone, Default)]
enum Places {
    #[default]
    None,
    One(usize),
    Several(Vec<usize>),
}

impl Places {
    fn push(&mut self, at: usize) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(at),
            Self::One(first) => Self::Several(vec![first, at]),
            Self::Several(mut all) => {
                all.push(at);
                Self::Several(all)
            }
        };
    }

    fn as_slice(&self) -> &[usize] {
        match self {
            Self::None => &[],
            Self::One(at) => std::slice::from_ref(at),
            Self::Several(all) => all,
        }
    }
}

impl<'d> Value<'d> {
    pub(super) fn new(document: &'d Document<'d>, at: usize) -> Self {
        Self {
            document,
            places: Places::One(at),
            depth: 0,
        }
    }

    fn below(&self, places: Places) -> Self {
        Self {
            document: self.document,
            places,
            depth: self.depth + 1,
        }
    }

    /// The last place that is not null; all of them must be of a kind.
    fn scalar(&self, kind: Kind) -> Result<Option<usize>, DecodeError> {
        let places = self.places.as_slice();
        self.all_of(places, kind)?;
        let mut places = places.iter().rev().copied();
        Ok(places.find(|at| self.document.kind(*at) != Kind::Null))
    }

    /// The places that say something about what `null` empties: those after the last one.
    fn after_null(&self) -> &[usize] {
        let places = self.places.as_slice();
        let null = places
            .iter()
            .rposition(|at| self.document.kind(*at) == Kind::Null);
        places
            .get(null.map_or(0, |at| at + 1)..)
            .unwrap_or_default()
    }

    /// The places, all of which must be of a kind.
    fn all_of(&self, places: &[usize], kind: Kind) -> Result<(), DecodeError> {
        if self.depth > MAX_KEPT_DEPTH {
            return Err(DecodeError::Depth);
        }
        for at in places {
            let actual = self.document.kind(*at);
            if actual != Kind::Null && actual.name() != kind.name() {
                return Err(mismatch(actual, kind.name()));
            }
        }
        Ok(())
    }

    fn number(&self) -> Result<Option<&'d str>, DecodeError> {
        let number_at = self.scalar(Kind::Number)?;
        Ok(number_at.map(|at| std::str::from_utf8(self.document.raw(at)).unwrap_or("0")))
    }

    fn text(&self) -> Result<Option<Cow<'d, str>>, DecodeError> {
        Ok(self.scalar(Kind::Text)?.map(|at| self.document.text(at)))
    }

    fn elements(&self) -> Result<Elements<'d>, DecodeError> {
        self.all_of(self.places.as_slice(), Kind::List)?;
        let places = self.after_null();
        let mut out: Vec<Places> = Vec::new();
        let mut length = 0;
        for list in places {
            length = 0;
            for (at, element) in self.document.elements(*list).enumerate() {
                length = at + 1;
                match out.get_mut(at) {
                    Some(places) => places.push(element),
                    None => out.push(Places::One(element)),
                }
            }
            if length == 0 {
                out.clear();
            }
        }
        out.truncate(length);
        Ok(Elements {
            list: self.clone(),
            left: out.into_iter(),
        })
    }
}

fn mismatch(actual: Kind, expected: &str) -> DecodeError {
    let article = if expected.starts_with(['a', 'o']) {
        "an"
    } else {
        "a"
    };
    DecodeError::Shape(format!(
        "cannot unmarshal {} where {article} {expected} is wanted",
        actual.name()
    ))
}

/// Whether a name is the same to Go apart from case; `field` is ASCII.
pub(super) fn is_same_name(field: &str, name: &str) -> bool {
    let mut name = name.chars().map(|c| match c {
        // What Unicode folds to ASCII.
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    });
    field
        .chars()
        .all(|c| name.next() == Some(c.to_ascii_lowercase()))
        && name.next().is_none()
}

macro_rules! integers {
    ($($method:ident $visit:ident $kind:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            let number = self.number()?.unwrap_or("0");
            // Go shows the number and the kind; the cause could only say which end of the range it exceeds.
            let value: $kind = number.parse().map_err(|_| {
                DecodeError::Shape(format!("cannot unmarshal number {number} where an integer is wanted"))
            })?;
            visitor.$visit(value)
        }
    )*};
}

impl<'de> Deserializer<'de> for Value<'_> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let Some(at) = self.places.as_slice().last().copied() else {
            return visitor.visit_unit();
        };
        // To what holds any value, the last one counts, whole.
        let last = Self {
            places: Places::One(at),
            ..self
        };
        match last.document.kind(at) {
            Kind::Null => visitor.visit_unit(),
            Kind::True => visitor.visit_bool(true),
            Kind::False => visitor.visit_bool(false),
            Kind::Text => last.deserialize_string(visitor),
            Kind::List => last.deserialize_seq(visitor),
            Kind::Object => last.deserialize_map(visitor),
            Kind::Number => {
                let number = last.number()?.unwrap_or("0");
                if let Ok(n) = number.parse::<u64>() {
                    visitor.visit_u64(n)
                } else if let Ok(n) = number.parse::<i64>() {
                    visitor.visit_i64(n)
                } else {
                    last.deserialize_f64(visitor)
                }
            }
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let boolean_at = self.scalar(Kind::True)?;
        visitor.visit_bool(boolean_at.is_some_and(|at| self.document.kind(at) == Kind::True))
    }

    integers! {
        deserialize_i8 visit_i64 i64,
        deserialize_i16 visit_i64 i64,
        deserialize_i32 visit_i64 i64,
        deserialize_i64 visit_i64 i64,
        deserialize_u8 visit_u64 u64,
        deserialize_u16 visit_u64 u64,
        deserialize_u32 visit_u64 u64,
        deserialize_u64 visit_u64 u64,
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let number = self.number()?.unwrap_or("0");
        let value = number.parse::<f64>().ok().filter(|n| n.is_finite());
        let value = value.ok_or_else(|| {
            DecodeError::Shape(format!("cannot unmarshal number {number} out of range"))
        })?;
        visitor.visit_f64(value)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_string(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.text()?.unwrap_or_default() {
            Cow::Borrowed(text) => visitor.visit_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.after_null() {
            [] => visitor.visit_none(),
            [at] => visitor.visit_some(Self {
                places: Places::One(*at),
                ..self
            }),
            several => visitor.visit_some(Self {
                places: Places::Several(several.to_vec()),
                ..self
            }),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(self.elements()?)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.all_of(self.places.as_slice(), Kind::Object)?;
        let places = self.after_null();
        let members = places
            .iter()
            .flat_map(|object| self.document.members(*object))
            .map(|(name, value)| (self.document.text(name), Places::One(value)));
        visitor.visit_map(Members {
            object: self.clone(),
            left: members.collect::<Vec<_>>().into_iter(),
            value: None,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let places = self.places.as_slice();
        self.all_of(places, Kind::Object)?;
        let mut values: Vec<Places> = vec![Places::None; fields.len()];
        let objects = places
            .iter()
            .filter(|at| self.document.kind(**at) == Kind::Object);
        for (name, value) in objects.flat_map(|object| self.document.members(*object)) {
            let name = self.document.text(name);
            let exact = fields.iter().position(|field| *field == name);
            let field =
                exact.or_else(|| fields.iter().position(|field| is_same_name(field, &name)));
            if let Some(places) = field.and_then(|field| values.get_mut(field)) {
                places.push(value);
            }
        }
        let present = fields.iter().zip(values).filter(|(_, places)| {
            let places = places.as_slice();
            places
                .iter()
                .any(|at| self.document.kind(*at) != Kind::Null)
        });
        let present = present.map(|(field, places)| (Cow::Borrowed(*field), places));
        visitor.visit_map(Members {
            left: present.collect::<Vec<_>>().into_iter(),
            object: self,
            value: None,
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let text = self.text()?.unwrap_or_default();
        visitor.visit_enum(StrDeserializer::<DecodeError>::new(&text))
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit_struct tuple_struct identifier
    }
}

struct Elements<'d> {
    list: Value<'d>,
    left: std::vec::IntoIter<Places>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let next = self.left.next();
        next.map(|places| seed.deserialize(self.list.below(places)))
            .transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.len())
    }
}

struct Members<'d> {
    object: Value<'d>,
    left: std::vec::IntoIter<(Cow<'d, str>, Places)>,
    value: Option<(Cow<'d, str>, Places)>,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        let Some((name, places)) = self.left.next() else {
            return Ok(None);
        };
        let key = seed.deserialize(CowStrDeserializer::<DecodeError>::new(name.clone()))?;
        self.value = Some((name, places));
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, DecodeError> {
        let (name, places) = self
            .value
            .take()
            .ok_or_else(|| DecodeError::custom("a value was asked for before its name"))?;
        seed.deserialize(self.object.below(places))
            .map_err(|error| error.inside(&name))
    }
}
