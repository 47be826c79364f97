// Sixteen models with as many classes, so that each can be told from the others by its name.
#pragma once

#define EACH_MODEL(DO)                                                                                                 \
    DO(00) DO(01) DO(02) DO(03) DO(04) DO(05) DO(06) DO(07) DO(08) DO(09) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)

#define DECLARE(NUMBER)                                                                                                \
    struct Model##NUMBER {                                                                                             \
        unsigned long predict(unsigned long value) const;                                                              \
        unsigned long transform(unsigned long value) const;                                                            \
    };

namespace ml {
EACH_MODEL(DECLARE)
} // namespace ml
