//! A table with a column of every type, and rows at the edges of each.
#![expect(unreachable_pub, reason = "what its users may use is pub")]

/// The beginning of the table's definition; what follows is a list of further columns
/// and the closing parenthesis.
pub const TABLE: &str = "CREATE TABLE shop.zoo (id INT PRIMARY KEY, tag INT NOT NULL DEFAULT 0,
    t TINYINT, tu TINYINT UNSIGNED, s SMALLINT, su SMALLINT UNSIGNED, m MEDIUMINT,
    mu MEDIUMINT UNSIGNED, i INT, iu INT UNSIGNED, b BIGINT, bu BIGINT UNSIGNED,
    d1 DECIMAL(65,30), d2 DECIMAL(5,0), d3 DECIMAL(10,10), d4 DECIMAL(18,9) UNSIGNED,
    f FLOAT, d DOUBLE, b1 BIT(1), b9 BIT(9), b64 BIT(64), y YEAR, da DATE,
    t0 TIME, t2 TIME(2), t3 TIME(3), t6 TIME(6), dt0 DATETIME, dt1 DATETIME(1), dt6 DATETIME(6),
    ts0 TIMESTAMP NULL, ts3 TIMESTAMP(3) NULL, ts6 TIMESTAMP(6) NULL,
    c CHAR(10), cl CHAR(255) CHARACTER SET latin1, cu CHAR(100), vs VARCHAR(20),
    vl VARCHAR(3000), vlat VARCHAR(20) CHARACTER SET latin1, bi BINARY(8), bi255 BINARY(255),
    vb VARBINARY(20), tt TINYTEXT, tx TEXT, mt MEDIUMTEXT, lt LONGTEXT, tb TINYBLOB, bl BLOB,
    mb MEDIUMBLOB, lb LONGBLOB, e ENUM('a','b''c','ü'), st SET('x','y','z'), g GEOMETRY, p POINT";

/// The names of its columns behind `id` and `tag`.
pub const COLUMNS: &str = "t, tu, s, su, m, mu, i, iu, b, bu, d1, d2, d3, d4, f, d, b1, b9, b64, y, \
    da, t0, t2, t3, t6, dt0, dt1, dt6, ts0, ts3, ts6, c, cl, cu, vs, vl, vlat, bi, bi255, vb, \
    tt, tx, mt, lt, tb, bl, mb, lb, e, st, g, p";

/// Four rows for those columns: the least values, the greatest, odd ones, NULLs.
pub fn values() -> [String; 4] {
    let least = "-128, 0, -32768, 0, -8388608, 0, -2147483648, 0, -9223372036854775808, 0,
        -99999999999999999999999999999999999.999999999999999999999999999999, -99999, -0.9999999999,
        0, -3.4e38, -1.7e308, 0, 0, 0, 0, '0000-00-00', '-838:59:59', '-00:00:00.01',
        '-838:59:58.999', '-00:00:00.000001', '0000-00-00 00:00:00', '1000-01-01 00:00:00.1',
        '0000-00-00 00:00:00', '0000-00-00 00:00:00', '1970-01-01 00:00:01.001',
        '0000-00-00 00:00:00', '', '', '', '', '', '', '', '', '', '', '', '', '', '', '', '', '',
        'a', '', POINT(0, 0), POINT(-1.5, 2)";
    let most = "127, 255, 32767, 65535, 8388607, 16777215, 2147483647, 4294967295,
        9223372036854775807, 18446744073709551615,
        99999999999999999999999999999999999.999999999999999999999999999999, 99999, 0.9999999999,
        999999999.999999999, 3.4e38, 1.7e308, 1, 511, 18446744073709551615, 2155, '9999-12-31',
        '838:59:59', '12:34:56.78', '-12:34:56.789', '838:59:58.999999', '9999-12-31 23:59:59',
        '2024-02-29 12:34:56.7', '9999-12-31 23:59:59.999999', '2038-01-19 03:14:07',
        '2000-02-29 23:59:59.999', '2024-12-31 23:59:59.123456', 'schön 😀 ', 'naïve é',
        REPEAT('😀', 100), 'ünïcødé 😀', REPEAT('я', 3000), 'é', x'0102000000000000',
        x'FF00', x'00AA0000', 'tiny', REPEAT('text ', 500), REPEAT('😀', 20000),
        REPEAT('l', 70000), x'00', x'FF00FF', REPEAT(x'00', 70000), REPEAT(x'FE', 100), 'ü',
        'x,z', LINESTRING(POINT(1, 2), POINT(3.25, -4)), POINT(1e10, -1e-10)";
    let odd = "-1, 128, -1, 32768, -1, 8388608, -1, 2147483648, -1, 9223372036854775808,
        0.000000000000000000000000000001, 7, 0.1, 123456789.000000001, 0.1, 0.1, 1, 256,
        9223372036854775808, 1901, '2024-00-00', '00:00:00', '-01:00:00.10', '-00:00:01.500',
        '-01:02:03.040506', '2024-01-00 00:00:00', '1000-01-01 00:00:00', '2024-06-15 01:02:03.04',
        '1970-01-01 00:00:01', '1999-12-31 23:59:59.5', '2001-09-09 01:46:40.000001', 'A  ',
        'x', 'y', 'trailing  ', 'z', 'z ', x'0000000000000000', x'01', x'', 'a', 'b', 'c', 'd',
        'e', 'f', 'g', 'h', 'b''c', 'x,y,z', POINT(1, 1), POINT(0, 0)";
    let nulls = vec!["NULL"; 52].join(", ");
    [least.to_owned(), most.to_owned(), odd.to_owned(), nulls]
}
