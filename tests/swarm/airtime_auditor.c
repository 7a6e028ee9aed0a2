/* An auditor of time on air, by brute force: it knows the law and nothing of the ledger that it audits.
 *
 * The law: no continuous hour of one sub-band holds more than the budget.  The content of a window that slides
 * is linear in between the instants at which one of its ends meets an edge (a start or an end of a transmission),
 * so the fullest hour begins or ends at an edge.  All of these are summed, transmission by transmission.
 *
 * Transmissions are [start, end) in us, sorted by start; none lasts longer than an hour. */
#include <stdint.h>
#include <stdlib.h>

#define HOUR INT64_C(3600000000)

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* The first transmission that starts at or after `at`. */
static size_t first_from(const int64_t *start, size_t count, int64_t at)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (start[middle] < at) low = middle + 1; else high = middle;
    }
    return low;
}

/* Time on air in [from, from + 1 h]; `longest` is the longest transmission. */
static int64_t content(const int64_t *start, const int64_t *end, size_t count, int64_t longest, int64_t from)
{
    int64_t until = from + HOUR, sum = 0;
    for (size_t i = first_from(start, count, from - longest); i < count && start[i] < until; i++)
        if (end[i] > from) sum += least(end[i], until) - most(start[i], from);
    return sum;
}

static int64_t longest_of(const int64_t *start, const int64_t *end, size_t count)
{
    int64_t longest = 0;
    for (size_t i = 0; i < count; i++) longest = most(longest, end[i] - start[i]);
    return longest;
}

/* The four windows that an edge pair makes, by number: they begin or end at its start or its end. */
static int64_t window(int64_t start, int64_t end, int which)
{
    return (which & 1 ? end : start) - (which & 2 ? HOUR : 0);
}

/* Time on air in the fullest hour, and where it begins. */
int64_t auditor_fullest(const int64_t *start, const int64_t *end, size_t count, int64_t *from)
{
    int64_t longest = longest_of(start, end, count), fullest = 0;
    for (size_t i = 0; i < count; i++)
        for (int which = 0; which < 4; which++) {
            int64_t at = window(start[i], end[i], which), sum = content(start, end, count, longest, at);
            if (sum > fullest) { fullest = sum; *from = at; }
        }
    return fullest;
}

typedef struct {
    const int64_t *start, *end;
    size_t count;
    int64_t longest, budget, airtime;
} air_t;

static int64_t overlap(int64_t at, int64_t airtime, int64_t from)
{
    return most(0, least(at + airtime, from + HOUR) - most(at, from));
}

static int holds(const air_t *air, int64_t at, int64_t from)
{
    int64_t mine = overlap(at, air->airtime, from);
    return mine == 0 || content(air->start, air->end, air->count, air->longest, from) + mine <= air->budget;
}

static int legal(const air_t *air, int64_t at)
{
    for (int which = 0; which < 4; which++)
        if (!holds(air, at, window(at, at + air->airtime, which))) return 0;
    for (size_t i = 0; i < air->count; i++)
        for (int which = 0; which < 4; which++)
            if (!holds(air, at, window(air->start[i], air->end[i], which))) return 0;
    return 1;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The first legal start in [not_before, until); -1: none.
 *
 * A start turns legal only where a window that was too full stops to be.  For a window at an edge of others that is
 * where the frame's overlap has shrunk to the room; for the frame's own hour, where its content has, which is linear
 * between the starts at which it meets an edge.  `scratch` has room for 20 * count + 1 numbers. */
int64_t auditor_earliest(const int64_t *start, const int64_t *end, size_t count, int64_t budget, int64_t airtime,
                         int64_t not_before, int64_t until, int64_t *scratch)
{
    air_t air = {start, end, count, longest_of(start, end, count), budget, airtime};
    int64_t *turns = scratch, *met = scratch + 12 * count + 1;
    size_t found = 0;
    turns[found++] = not_before;
    for (size_t i = 0; i < count; i++)
        for (int which = 0; which < 4; which++) {
            int64_t from = window(start[i], end[i], which);
            turns[found++] = from + HOUR - (budget - content(start, end, count, air.longest, from));
        }
    for (int own = 0; own < 2; own++) { /* the hour that begins with the frame; the one that ends with it */
        int64_t shift = own ? airtime - HOUR : 0;
        for (size_t i = 0; i < count; i++)
            for (int which = 0; which < 4; which++) met[4 * i + (size_t)which] = window(start[i], end[i], which) - shift;
        qsort(met, 4 * count, sizeof *met, by_value);
        for (size_t i = 1; i < 4 * count; i++) {
            if (met[i] == met[i - 1]) continue;
            int64_t before = content(start, end, count, air.longest, met[i - 1] + shift) + airtime - budget;
            int64_t after = content(start, end, count, air.longest, met[i] + shift) + airtime - budget;
            if (before <= 0 || after > 0) continue;
            int64_t slope = (before - after) / (met[i] - met[i - 1]);
            turns[found++] = met[i - 1] + (before + slope - 1) / slope;
        }
    }
    qsort(turns, found, sizeof *turns, by_value);
    for (size_t i = 0; i < found; i++)
        if (turns[i] >= not_before && turns[i] < until && legal(&air, turns[i])) return turns[i];
    return -1;
}
